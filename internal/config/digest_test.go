package config

import (
	"maps"
	"path/filepath"
	"slices"
	"testing"
)

// While one version replaces another, gateways of the one ask brokers of the other
// with this digest, and are refused when it differs. So the sets of the folder and
// their digests are never changed, only added to.
func TestSetsOfEarlierVersionsAreUnderstoodAsBefore(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"everything.yaml":    "b1c735da3375ff070f72b3cc11e6f53734cb32216c41548e0c5926451f8d6cbc",
		"github-google.yaml": "8ec40391aec5f8a552595caec19491b8fb3025cb8d1ceec944c21aabe9d18555",
	}
	files, err := filepath.Glob("testdata/earlier/*.yaml")
	if err != nil || len(files) != len(want) {
		t.Fatalf("%v, %v: want %v", files, err, slices.Sorted(maps.Keys(want)))
	}
	for _, file := range files {
		set, report := Load(file)
		if err := report.Err(); err != nil {
			t.Errorf("%s is no longer valid: %v", file, err)
			continue
		}
		if got := set.Digest(); got != want[filepath.Base(file)] {
			t.Errorf("%s: the digest is %s", file, got)
		}
	}
}

func TestFieldsThatAreZeroAndEntriesOfMapsInTheDigest(t *testing.T) {
	t.Parallel()
	with := func(params map[string]string, scopes []string) string {
		return digest(&Deployment{Scopes: scopes, AuthServer: &AuthServer{Providers: []Provider{{AuthorizationParams: params}}}})
	}
	if with(nil, nil) != with(nil, []string{}) {
		t.Error("no scopes and none given differ")
	}
	if with(map[string]string{"prompt": ""}, nil) == with(map[string]string{}, nil) {
		t.Error("an empty parameter, which is sent, does not count")
	}
}
