package snapshot_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"chatelaine.dev/examples/internal/snapshot"
)

type state struct{ Counts map[string]int }

func fresh() (*state, error) { return &state{Counts: map[string]int{}}, nil }

func TestStateSurvivesARestart(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "deep", "state.json")
	s, err := snapshot.Open(path, fresh)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := s.Update(func(st *state) error { st.Counts["a"]++; return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()

	again, err := snapshot.Open(path, func() (*state, error) { return nil, errors.New("a fresh state was taken") })
	if err != nil {
		t.Fatal(err)
	}
	again.View(func(st *state) {
		if st.Counts["a"] != 20 {
			t.Errorf("after the restart a = %d, want 20", st.Counts["a"])
		}
	})
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v: others can read the state", info.Mode())
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*.tmp"))
	if err != nil || len(left) != 0 {
		t.Errorf("temporary files left behind: %v, %v", left, err)
	}
}

func TestAChangeThatCannotBeWrittenDidNotHappen(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	s, err := snapshot.Open(filepath.Join(dir, "state.json"), fresh)
	if err != nil {
		t.Fatal(err)
	}
	// A file where the folder was: also root cannot write below it.
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(func(st *state) error { st.Counts["a"]++; return nil }); err == nil {
		t.Fatal("Update succeeded though nothing can be written")
	}
	s.View(func(st *state) {
		if st.Counts["a"] != 0 {
			t.Errorf("a = %d: the failed change is visible", st.Counts["a"])
		}
	})
}

func TestADamagedFileIsReportedAndNotOverwritten(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.json")
	if err := os.WriteFile(path, []byte(`{"Counts":`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := snapshot.Open(path, fresh); err == nil {
		t.Error("Open accepted half a file")
	}
	if data, _ := os.ReadFile(path); string(data) != `{"Counts":` {
		t.Errorf("the damaged file was changed to %q", data)
	}
}
