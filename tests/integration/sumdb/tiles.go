// SPDX-License-Identifier: Apache-2.0

// The tree that lies in c2sp.org/tlog-tiles files, read as their specification says and computed by sumdb/tlog.
package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/tlog"
)

const (
	height = 8
	width  = 1 << height
)

// "N[.p/W]", N in groups of three digits of which all but the last follow an "x".
func pathOf(kind string, n int64, w int) string {
	path := fmt.Sprintf("%03d", n%1000)
	for n /= 1000; n > 0; n /= 1000 {
		path = fmt.Sprintf("x%03d/%s", n%1000, path)
	}
	if w < width {
		path = fmt.Sprintf("%s.p/%d", path, w)
	}
	return filepath.Join("tile", kind, path)
}

// The tiles of a tree of `size` leaves: the full ones of each level, and what is left of it.
func tilesOf(size int64) (tiles []tlog.Tile) {
	for level := 0; size>>(height*level) > 0; level++ {
		hashes := size >> (height * level)
		for n := int64(0); n < hashes/width; n++ {
			tiles = append(tiles, tlog.Tile{H: height, L: level, N: n, W: width})
		}
		if rest := int(hashes % width); rest > 0 {
			tiles = append(tiles, tlog.Tile{H: height, L: level, N: hashes / width, W: rest})
		}
	}
	return tiles
}

func readTile(dir string, tile tlog.Tile) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(dir, pathOf(fmt.Sprint(tile.L), tile.N, tile.W)))
	if err == nil && len(data) != tile.W*tlog.HashSize {
		err = fmt.Errorf("%+v has %d bytes", tile, len(data))
	}
	return data, err
}

// All hashes of the tree, from those of its leaves alone.
func readTree(dir string, size int64) (tlog.HashReader, error) {
	stored := make([]tlog.Hash, 0, tlog.StoredHashCount(size))
	reader := tlog.HashReaderFunc(func(indexes []int64) (hashes []tlog.Hash, err error) {
		for _, i := range indexes {
			hashes = append(hashes, stored[i])
		}
		return hashes, nil
	})
	for _, tile := range tilesOf(size) {
		if tile.L > 0 {
			break
		}
		data, err := readTile(dir, tile)
		if err != nil {
			return nil, err
		}
		for i := 0; i < tile.W; i++ {
			var leaf tlog.Hash
			copy(leaf[:], data[i*tlog.HashSize:])
			more, err := tlog.StoredHashesForRecordHash(tile.N*width+int64(i), leaf, reader)
			if err != nil {
				return nil, err
			}
			stored = append(stored, more...)
		}
	}
	return reader, nil
}

// The leaves' tiles lead to the signed root, and the tiles above hold what follows from them.
func checkTiles(dir string, size int64, root tlog.Hash) error {
	reader, err := readTree(dir, size)
	if err != nil {
		return err
	}
	computed, err := tlog.TreeHash(size, reader)
	if err != nil {
		return err
	}
	if computed != root {
		return errors.New("the tiles' root is not the signed one")
	}
	for _, tile := range tilesOf(size) {
		expected, err := tlog.ReadTileData(tile, reader)
		if err != nil {
			return err
		}
		data, err := readTile(dir, tile)
		if err != nil {
			return err
		}
		if !bytes.Equal(data, expected) {
			return fmt.Errorf("%+v is not what the leaves make it", tile)
		}
	}
	return nil
}

// Entries follow each other, each after its length in two bytes, big-endian.
func splitBundle(bundle []byte) (entries [][]byte, err error) {
	for len(bundle) > 0 {
		if len(bundle) < 2 || len(bundle)-2 < int(binary.BigEndian.Uint16(bundle)) {
			return nil, errors.New("an entry bundle ends within an entry")
		}
		end := 2 + int(binary.BigEndian.Uint16(bundle))
		entries = append(entries, bundle[2:end])
		bundle = bundle[end:]
	}
	return entries, nil
}

// The entry bundles hold what the leaves' tiles are the hashes of.
func checkEntries(dir string, size int64) error {
	for _, tile := range tilesOf(size) {
		if tile.L > 0 {
			break
		}
		path := pathOf("entries", tile.N, tile.W)
		bundle, err := os.ReadFile(filepath.Join(dir, path))
		if err != nil {
			return err
		}
		entries, err := splitBundle(bundle)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		data, err := readTile(dir, tile)
		if err != nil {
			return err
		}
		var hashes []byte
		for _, entry := range entries {
			hash := tlog.RecordHash(entry)
			hashes = append(hashes, hash[:]...)
		}
		if !bytes.Equal(hashes, data) {
			return fmt.Errorf("%s: its entries' hashes are not those of the tile", path)
		}
	}
	return nil
}
