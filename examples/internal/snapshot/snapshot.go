package snapshot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// maxSize bounds a state file, in bytes.
const maxSize = 64 << 20

// Store guards one value. Use Open to make one.
type Store[T any] struct {
	path string // empty: memory only

	mu    sync.Mutex
	value *T
	saved []byte // what the file holds
}

// Open reads the state from path; where there is no file it takes fresh() and
// writes that. An empty path keeps the state in memory only.
func Open[T any](path string, fresh func() (*T, error)) (*Store[T], error) {
	s := &Store[T]{path: path}
	data, err := s.read()
	switch {
	case err == nil && data != nil:
		s.value = new(T)
		if err := json.Unmarshal(data, s.value); err != nil {
			return nil, fmt.Errorf("snapshot %s: %w", path, err)
		}
		s.saved = data
		return s, nil
	case err != nil:
		return nil, err
	}
	if s.value, err = fresh(); err != nil {
		return nil, err
	}
	return s, s.write()
}

// View calls fn with the state, which fn must neither change nor keep.
func (s *Store[T]) View(fn func(*T)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn(s.value)
}

// Update calls fn with the state. An error from fn is returned as it is, and
// then fn must not have changed anything. Otherwise the state is on disk when
// Update returns nil.
func (s *Store[T]) Update(fn func(*T) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := fn(s.value); err != nil {
		return err
	}
	if err := s.write(); err != nil {
		before := new(T)
		if uerr := json.Unmarshal(s.saved, before); uerr != nil {
			return errors.Join(err, uerr)
		}
		s.value = before
		return err
	}
	return nil
}

func (s *Store[T]) read() ([]byte, error) {
	if s.path == "" {
		return nil, nil
	}
	f, err := os.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("snapshot: read %s: %w", s.path, err)
	}
	if len(data) > maxSize {
		return nil, fmt.Errorf("snapshot: %s is larger than %d bytes", s.path, maxSize)
	}
	return data, nil
}

func (s *Store[T]) write() error {
	if s.path == "" {
		return nil
	}
	data, err := json.Marshal(s.value)
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	if err := replace(s.path, data); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	s.saved = data
	return nil
}

// replace puts data into path so that a crash at any moment leaves the old file
// or the new one: the data is synced before the rename, the folder after it.
func replace(path string, data []byte) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, filepath.Base(path)+".*.tmp") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			_ = os.Remove(f.Name()) // the error that matters is err
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
