// Command config-docs writes the JSON Schema of the configuration and renews
// the generated regions of its documentation. `go generate ./config` runs it.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"chatelaine.dev/internal/config/configdoc"
)

func main() {
	root := flag.String("root", ".", "root of the repository")
	flag.Parse()
	if err := run(*root); err != nil {
		fmt.Fprintln(os.Stderr, "config-docs:", err)
		os.Exit(1)
	}
}

func run(root string) error {
	files, err := configdoc.Files(root)
	if err != nil {
		return err
	}
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
