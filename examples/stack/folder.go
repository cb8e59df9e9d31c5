package stack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"chatelaine.dev/internal/pgcluster"
)

// marker is the file that says that a folder is a stack's and may be removed.
const marker = ".chatelaine-stack"

const markerText = "Made by chatelaine-dev, which removes this folder when it is told to clean.\n"

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
	return os.WriteFile(path, []byte(markerText), 0o600)
}

// Remove removes a stack's folder, and Postgres' data where that lies elsewhere,
// and returns what it removed: nothing when there is no such folder. A folder
// that no stack made is an error, and stays.
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
	data, err := pgcluster.DataDir(filepath.Join(dir, "postgres"))
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
