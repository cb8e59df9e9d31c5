package stack

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestRemoveLeavesFoldersOfOthersAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	letter := filepath.Join(dir, "letter.txt")
	if err := os.WriteFile(letter, []byte("dear"), 0o600); err != nil {
		t.Fatal(err)
	}
	if removed, err := Remove(dir); err == nil || len(removed) > 0 {
		t.Errorf("removed %v, %v", removed, err)
	}
	if err := claim(dir); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("a folder with files of somebody else's was claimed: %v", err)
	}
	if removed, err := Remove(dir); err == nil || len(removed) > 0 {
		t.Errorf("after a refused claim: removed %v, %v", removed, err)
	}
	if _, err := os.Stat(letter); err != nil {
		t.Error(err)
	}
}

func TestRemoveForgetsAStackOnce(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "run")
	for range 2 { // a second start finds the folder its own
		if err := claim(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "resources.yaml"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if removed, err := Remove(dir); err != nil || !slices.Equal(removed, []string{dir}) {
		t.Errorf("removed %v, %v", removed, err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
	if removed, err := Remove(dir); err != nil || len(removed) > 0 {
		t.Errorf("the second time: removed %v, %v", removed, err)
	}
}

func TestAFolderThatIsMadeAgainDoesNotMeetTheDataOfTheOneBefore(t *testing.T) {
	t.Parallel()
	parent := t.TempDir() // nobody else may enter: root's Postgres keeps its data elsewhere
	if err := os.Chmod(parent, 0o700); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(parent, "run")
	made := func() string {
		t.Helper()
		if err := claim(dir); err != nil {
			t.Fatal(err)
		}
		data, err := PostgresDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	first := made()
	if again := made(); again != first {
		t.Errorf("a second start has its data at %s, the first had it at %s", again, first)
	}
	if err := os.RemoveAll(dir); err != nil { // with the clone, say
		t.Fatal(err)
	}
	if next := made(); next == first && !strings.HasPrefix(next, dir) {
		t.Errorf("a new folder has the data of the one before, %s", next)
	}
}

func TestTheFolderOfAStackThatRunsIsNotRemoved(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "run")
	if err := claim(dir); err != nil {
		t.Fatal(err)
	}
	release, err := lockFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockFolder(dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("two stacks in one folder: %v", err)
	}
	if removed, err := Remove(dir); err == nil || !strings.Contains(err.Error(), "stop it first") || len(removed) > 0 {
		t.Errorf("removed %v, %v", removed, err)
	}
	if _, err := os.Stat(filepath.Join(dir, marker)); err != nil {
		t.Error(err)
	}
	release()
	if removed, err := Remove(dir); err != nil || !slices.Equal(removed, []string{dir}) {
		t.Errorf("once it has stopped: removed %v, %v", removed, err)
	}
}
