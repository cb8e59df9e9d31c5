package stack

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"chatelaine.dev/internal/pgcluster"
)

// marker is the file that says that a folder is a stack's and may be removed.
const marker = ".chatelaine-stack"

const markerText = "Made by chatelaine-dev, which removes this folder when it is told to clean.\n"

// idPrefix begins the marker's line that tells this folder from another one that
// was at its place before.
const idPrefix = "id: "

// claim makes dir a stack's folder. A folder with files of somebody else's is
// refused, so that Remove can never remove them.
func claim(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(dir, marker)
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s is not empty and has no %s: it is not a folder of this program; choose another with --dir, or remove it", dir, marker)
	}
	id := make([]byte, 4)
	rand.Read(id)
	return os.WriteFile(path, []byte(markerText+idPrefix+hex.EncodeToString(id)+"\n"), 0o600)
}

// lockFolder makes dir the folder of one stack that runs, until release or the end
// of this process.
func lockFolder(dir string) (release func(), err error) {
	release, err = lockFile(filepath.Join(dir, ".lock"))
	if err == nil && release == nil {
		err = fmt.Errorf("a stack runs in %s: stop it first (Ctrl-C where \"make up\" or \"make demo\" runs)", dir)
	}
	return release, err
}

// PostgresDir is where the data of a stack's Postgres is: in the stack's folder, or where the user that
// Postgres runs as can reach it. There it is that very folder's own: data of one
// that was removed and made again cannot be opened with the new one's keys.
func PostgresDir(dir string) (string, error) {
	inside, err := filepath.Abs(filepath.Join(dir, "postgres"))
	if err != nil {
		return "", err
	}
	data, err := pgcluster.DataDir(inside)
	if err != nil || data == inside {
		return data, err
	}
	text, err := os.ReadFile(filepath.Join(dir, marker))
	if err != nil {
		return "", err
	}
	_, id, ok := strings.Cut(string(text), idPrefix)
	if id = strings.TrimSpace(id); !ok || len(id) != 8 || strings.Trim(id, "0123456789abcdef") != "" {
		return data, nil // of before there were ids
	}
	return data + "-" + id, nil
}

// Remove removes a stack's folder, and Postgres' data where that lies elsewhere,
// and returns what it removed: nothing when there is no such folder. A folder
// that no stack made, or in which one runs, is an error, and stays.
func Remove(dir string) (removed []string, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if _, err := os.Lstat(filepath.Join(dir, marker)); err != nil {
		return nil, fmt.Errorf("%s has no %s: it is not a folder of this program and stays as it is", dir, marker)
	}
	release, err := lockFolder(dir)
	if err != nil {
		return nil, err
	}
	defer release()
	data, err := PostgresDir(dir)
	if err != nil {
		return nil, err
	}
	for _, d := range []string{data, dir} { // dir, with its marker, last
		if _, err := os.Stat(d); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.RemoveAll(d); err != nil {
			return removed, err
		}
		removed = append(removed, d)
	}
	return removed, nil
}
