// SPDX-License-Identifier: Apache-2.0

// Judges signed notes and receipts with the code of Go's checksum database, which knows nothing of custody.
//
// usage: judge open VKEYFILE NOTEFILE           prints the note's text
//
//	judge check VKEYFILE PROOFFILE RECORDFILE   RECORDFILE holds the record's line without its newline
//	judge growth VKEYFILE PROOFFILE OLDFILE     OLDFILE holds the signed head of the smaller tree
//	judge tiles VKEYFILE NOTEFILE DIR           DIR holds tile/...; prints the tree's size
//	judge entries VKEYFILE NOTEFILE DIR         the same, and tile/entries/... too
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
	size, root, err := openCheckpoint(vkeyFile, []byte(checkpoint))
	if err != nil {
		return err
	}
	return tlog.CheckRecord(path, size, root, index, tlog.RecordHash(record))
}

// "old N", hashes, an empty line and the newer checkpoint.
func growth(vkeyFile string, proof, older []byte) error {
	head, checkpoint, found := strings.Cut(string(proof), "\n\n")
	lines := strings.Split(head, "\n")
	if !found { // without hashes the empty line is the second one
		head, checkpoint, found = strings.Cut(string(proof), "\n")
		lines = []string{head}
		checkpoint = strings.TrimPrefix(checkpoint, "\n")
	}
	if !found || !strings.HasPrefix(lines[0], "old ") {
		return errors.New("this is no proof")
	}
	claimed, err := strconv.ParseInt(strings.TrimPrefix(lines[0], "old "), 10, 64)
	if err != nil {
		return err
	}
	var path tlog.TreeProof
	for _, line := range lines[1:] {
		hash, err := parseHash(line)
		if err != nil {
			return err
		}
		path = append(path, hash)
	}
	oldSize, oldRoot, err := openCheckpoint(vkeyFile, older)
	if err != nil {
		return err
	}
	if claimed != oldSize {
		return errors.New("the proof is about another tree than the older head's")
	}
	size, root, err := openCheckpoint(vkeyFile, []byte(checkpoint))
	if err != nil {
		return err
	}
	return tlog.CheckTree(path, size, root, oldSize, oldRoot)
}

func openCheckpoint(vkeyFile string, message []byte) (size int64, root tlog.Hash, err error) {
	text, err := openNote(vkeyFile, message)
	if err != nil {
		return 0, root, err
	}
	return parseCheckpoint(text)
}

func judgeTiles(vkeyFile string, checkpoint []byte, dir string, withEntries bool) error {
	size, root, err := openCheckpoint(vkeyFile, checkpoint)
	if err != nil {
		return err
	}
	if err := checkTiles(dir, size, root); err != nil {
		return err
	}
	if withEntries {
		if err := checkEntries(dir, size); err != nil {
			return err
		}
	}
	fmt.Println(size)
	return nil
}

func run(args []string) error {
	first, err := os.ReadFile(args[2])
	if err != nil {
		return err
	}
	switch args[0] {
	case "open":
		text, err := openNote(args[1], first)
		fmt.Print(text)
		return err
	case "tiles", "entries":
		return judgeTiles(args[1], first, args[3], args[0] == "entries")
	}
	second, err := os.ReadFile(args[3])
	if err != nil {
		return err
	}
	if args[0] == "growth" {
		return growth(args[1], first, second)
	}
	return check(args[1], first, second)
}

func main() {
	args := os.Args[1:]
	arguments := map[string]int{"open": 3, "check": 4, "growth": 4, "tiles": 4, "entries": 4}
	if len(args) == 0 || arguments[args[0]] != len(args) {
		fmt.Fprintln(os.Stderr, "usage: judge open|check|growth|tiles|entries VKEYFILE FILE [RECORDFILE|OLDFILE|DIR]")
		os.Exit(2)
	}
	if err := run(args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
