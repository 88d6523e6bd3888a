// SPDX-License-Identifier: Apache-2.0

// Judges signed notes and receipts with the code of Go's checksum database, which knows nothing of custody.
//
// usage: judge open VKEYFILE NOTEFILE           prints the note's text
//
//	judge check VKEYFILE PROOFFILE RECORDFILE   RECORDFILE holds the record's line without its newline
//
// Exit status: 0 right, 1 not, 2 usage.
package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func openNote(vkeyFile string, message []byte) (string, error) {
	vkey, err := os.ReadFile(vkeyFile)
	if err != nil {
		return "", err
	}
	verifier, err := note.NewVerifier(strings.TrimSpace(string(vkey)))
	if err != nil {
		return "", fmt.Errorf("%s: %w", vkeyFile, err)
	}
	opened, err := note.Open(message, note.VerifierList(verifier))
	if err != nil {
		return "", err
	}
	return opened.Text, nil
}

func parseHash(text string) (hash tlog.Hash, err error) {
	bytes, err := base64.StdEncoding.Strict().DecodeString(text)
	if err == nil && len(bytes) != len(hash) {
		err = errors.New("a hash has another length")
	}
	copy(hash[:], bytes)
	return hash, err
}

// Size and root hash of a checkpoint's text.
func parseCheckpoint(text string) (size int64, root tlog.Hash, err error) {
	lines := strings.Split(text, "\n")
	if len(lines) < 4 {
		return 0, root, errors.New("the checkpoint has too few lines")
	}
	if size, err = strconv.ParseInt(lines[1], 10, 64); err != nil {
		return 0, root, err
	}
	root, err = parseHash(lines[2])
	return size, root, err
}

// c2sp.org/tlog-proof, without extra data.
func check(vkeyFile string, proof, record []byte) error {
	head, checkpoint, found := strings.Cut(string(proof), "\n\n")
	lines := strings.Split(head, "\n")
	if !found || len(lines) < 2 || lines[0] != "c2sp.org/tlog-proof@v1" || !strings.HasPrefix(lines[1], "index ") {
		return errors.New("this is no proof")
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[1], "index "), 10, 64)
	if err != nil {
		return err
	}
	var path tlog.RecordProof
	for _, line := range lines[2:] {
		hash, err := parseHash(line)
		if err != nil {
			return err
		}
		path = append(path, hash)
	}
	text, err := openNote(vkeyFile, []byte(checkpoint))
	if err != nil {
		return err
	}
	size, root, err := parseCheckpoint(text)
	if err != nil {
		return err
	}
	return tlog.CheckRecord(path, size, root, index, tlog.RecordHash(record))
}

func run(args []string) error {
	first, err := os.ReadFile(args[2])
	if err != nil {
		return err
	}
	if args[0] == "open" {
		text, err := openNote(args[1], first)
		fmt.Print(text)
		return err
	}
	record, err := os.ReadFile(args[3])
	if err != nil {
		return err
	}
	return check(args[1], first, record)
}

func main() {
	args := os.Args[1:]
	if !(len(args) == 3 && args[0] == "open") && !(len(args) == 4 && args[0] == "check") {
		fmt.Fprintln(os.Stderr, "usage: judge open VKEYFILE NOTEFILE | judge check VKEYFILE PROOFFILE RECORDFILE")
		os.Exit(2)
	}
	if err := run(args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
