//go:build compose

package compose

import (
	"archive/tar"
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// targets are the images, each with the binaries that it holds.
var targets = map[string][]string{
	"authserver": {"authserver"}, "tokenbroker": {"tokenbroker"}, "gateway": {"gateway"}, "examples": {"chatelaine-dev", "examples"},
}

// Sizes that an image must stay below, in bytes.
const (
	mostOfService  = 45_000_000
	mostOfExamples = 70_000_000
)

// image is what the engine says of one.
type image struct {
	Size   int64
	Config struct {
		User         string
		Entrypoint   []string
		Cmd          []string
		Labels       map[string]string
		Healthcheck  *struct{ Test []string }
		ExposedPorts map[string]struct{}
	}
	RootFS struct{ Layers []string }
}

func inspect(t *testing.T, name string) image {
	t.Helper()
	var found []image
	if err := json.Unmarshal([]byte(docker(t, "image", "inspect", name)), &found); err != nil || len(found) != 1 {
		t.Fatalf("inspect %s: %v, %d images", name, err, len(found))
	}
	return found[0]
}

// buildImages builds what is missing, as `make images` does.
func buildImages(t *testing.T) {
	t.Helper()
	if len(images(t)) < len(targets) {
		newProject(t).compose("build", "--quiet")
	}
}

func nameOf(target string) string { return "chatelaine/" + target + ":" + version }

func TestImagesSayWhatTheyAreAndWhoRunsThem(t *testing.T) {
	buildImages(t)
	for target, binaries := range targets {
		img := inspect(t, nameOf(target))
		for label, want := range map[string]string{
			"title": "chatelaine/" + target, "version": version, "revision": revision, "licenses": "Apache-2.0", "vendor": "Chatelaine",
		} {
			if got := img.Config.Labels["org.opencontainers.image."+label]; got != want {
				t.Errorf("%s: label %s is %q, want %q", target, label, got, want)
			}
		}
		if img.Config.Labels["org.opencontainers.image.description"] == "" {
			t.Errorf("%s has no description", target)
		}
		if img.Config.User != "65532:65532" {
			t.Errorf("%s runs as %q", target, img.Config.User)
		}
		binary := "/" + binaries[len(binaries)-1]
		if !slices.Equal(img.Config.Entrypoint, []string{binary}) {
			t.Errorf("%s starts %q", target, img.Config.Entrypoint)
		}
		most := int64(mostOfExamples)
		if target != "examples" { // it holds several servers, none of which is its default
			most = mostOfService
			if h := img.Config.Healthcheck; h == nil || !slices.Equal(h.Test, []string{"CMD", binary, "healthcheck"}) {
				t.Errorf("%s: health check %v", target, h)
			}
			if !slices.Equal(img.Config.Cmd, []string{"serve"}) || len(img.Config.ExposedPorts) < 2 {
				t.Errorf("%s: command %q, ports %v", target, img.Config.Cmd, img.Config.ExposedPorts)
			}
		}
		t.Logf("%s: %.1f MB", target, float64(img.Size)/1e6)
		if img.Size > most {
			t.Errorf("%s has %d bytes, more than %d", target, img.Size, most)
		}
	}
}

func TestImagesHoldStaticBinariesAndNothingToRunBesideThem(t *testing.T) {
	buildImages(t)
	for target, binaries := range targets {
		files := filesOf(t, nameOf(target))
		want := []string{"etc/ssl/certs/ca-certificates.crt"}
		for _, b := range binaries {
			want = append(want, b)
			checkBinary(t, target, files[b].content)
		}
		slices.Sort(want)
		var got []string
		for name, f := range files {
			if f.header.ModTime.Unix() != 0 && !f.parent {
				t.Errorf("%s: %s is of %s, so that the layer differs each time", target, name, f.header.ModTime)
			}
			switch owned := f.header.Uid == 0 && f.header.Gid == 0; {
			case f.header.Typeflag == tar.TypeReg:
				got = append(got, name)
				if !owned || f.header.Mode&0o022 != 0 || f.header.Mode&0o7000 != 0 {
					t.Errorf("%s: %s is of %d:%d, mode %o", target, name, f.header.Uid, f.header.Gid, f.header.Mode)
				}
			case f.header.Typeflag != tar.TypeDir:
				t.Errorf("%s: %s is no file and no folder", target, name)
			case !owned && target != "examples": // whose folders volumes take their owner from
				t.Errorf("%s: folder %s is of %d:%d", target, name, f.header.Uid, f.header.Gid)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s holds %q, want %q", target, got, want)
		}
	}
}

// file is one in an image.
type file struct {
	header  *tar.Header
	content []byte
	parent  bool // a folder on the way to a file of a layer
}

// filesOf reads all layers of an image, without leading and trailing slashes.
func filesOf(t *testing.T, name string) map[string]file {
	t.Helper()
	saved := filepath.Join(t.TempDir(), "image.tar")
	docker(t, "image", "save", "--output="+saved, name)
	blobs := map[string][]byte{}
	entries(t, saved, func(h *tar.Header, content []byte) { blobs[h.Name] = content })
	var manifest []struct{ Layers []string }
	if err := json.Unmarshal(blobs["manifest.json"], &manifest); err != nil || len(manifest) != 1 || len(manifest[0].Layers) < 2 {
		t.Fatalf("the manifest of %s: %v: %s", name, err, blobs["manifest.json"])
	}
	files := map[string]file{}
	for _, layer := range manifest[0].Layers {
		path := filepath.Join(t.TempDir(), "layer.tar")
		if err := os.WriteFile(path, blobs[layer], 0o600); err != nil {
			t.Fatal(err)
		}
		entries(t, path, func(h *tar.Header, content []byte) {
			files[strings.Trim(h.Name, "/")] = file{header: h, content: content}
		})
	}
	return files
}

func entries(t *testing.T, path string, each func(*tar.Header, []byte)) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		each(h, content)
	}
}

func checkBinary(t *testing.T, target string, content []byte) {
	t.Helper()
	binary, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		t.Errorf("%s: %v", target, err)
		return
	}
	for _, p := range binary.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("%s: the binary needs a dynamic linker", target)
		}
	}
	info, err := buildinfo.Read(bytes.NewReader(content))
	if err != nil {
		t.Errorf("%s: %v", target, err)
		return
	}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	if settings["CGO_ENABLED"] != "0" || settings["-trimpath"] != "true" || settings["vcs.revision"] != "" {
		t.Errorf("%s was built with %v", target, settings)
	}
	if pinned := goVersion(t); info.GoVersion != "go"+pinned {
		t.Errorf("%s was built with %s, the Dockerfile names %s", target, info.GoVersion, pinned)
	}
}

func goVersion(t *testing.T) string {
	t.Helper()
	dockerfile, err := os.ReadFile(filepath.Join(root, "deploy", "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^ARG GO_VERSION=(\S+)$`).FindSubmatch(dockerfile)
	if m == nil {
		t.Fatal("the Dockerfile names no Go version")
	}
	return string(m[1])
}

func TestImagesRunWithoutRightsAndSayTheirVersion(t *testing.T) {
	buildImages(t)
	confined := []string{"run", "--rm", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=none"}
	for target := range targets {
		says := docker(t, append(slices.Clone(confined), nameOf(target), "version")...)
		if words := strings.Fields(says); len(words) < 2 || words[0] != target || words[1] != version {
			t.Errorf("%s says it is %q", target, says)
		}
		if target != "examples" {
			out, err := exec.CommandContext(t.Context(), "docker", append(slices.Clone(confined), nameOf(target), "healthcheck")...).CombinedOutput()
			if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
				t.Errorf("%s: its health check found a server where there is none: %v: %s", target, err, out)
			}
		}
		out, err := exec.CommandContext(t.Context(), "docker", append(slices.Clone(confined), "--entrypoint=/bin/sh", nameOf(target), "-c", "true")...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "no such file or directory") {
			t.Errorf("%s: a shell: %v: %s", target, err, out)
		}
	}
}

// TestAnImageIsTheSameWhenBuiltAgain builds one, whose steps are those of the others, without cached
// steps, in another folder and with other file times. Go's own build cache stays.
func TestAnImageIsTheSameWhenBuiltAgain(t *testing.T) {
	buildImages(t)
	dir := t.TempDir()
	for _, folder := range []string{"proto", "internal", "services"} {
		if err := os.CopyFS(filepath.Join(dir, folder), os.DirFS(filepath.Join(root, folder))); err != nil {
			t.Fatal(err)
		}
	}
	for from, to := range map[string]string{"deploy/Dockerfile": "Dockerfile", ".dockerignore": ".dockerignore"} {
		content, err := os.ReadFile(filepath.Join(root, from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, to), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const again = "chatelaine/gateway-again:" + version
	docker(t, "build", "--quiet", "--no-cache", "--target=gateway", "--build-arg=VERSION="+version, "--build-arg=REVISION="+revision, "--tag="+again, dir)
	first, second := inspect(t, nameOf("gateway")).RootFS.Layers, inspect(t, again).RootFS.Layers
	if len(first) < 2 || !slices.Equal(first, second) {
		t.Errorf("the layers differ:\n%s\n%s", strings.Join(first, "\n"), strings.Join(second, "\n"))
	}
	for name := range targets { // and two images differ, so that the comparison can fail
		if other := inspect(t, nameOf(name)).RootFS.Layers; name != "gateway" && slices.Equal(other, second) {
			t.Errorf("gateway has the layers of %s", name)
		}
	}
}
