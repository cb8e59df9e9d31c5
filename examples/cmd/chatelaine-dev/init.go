package main

import (
	"fmt"
	"path/filepath"

	"chatelaine.dev/examples/stack"
)

type initCmd struct {
	Postgres string `default:"postgres:5432" placeholder:"HOST:PORT" help:"Where the services find the database (${default})."`
}

// Run makes what is missing, each time that the containers start.
func (c *initCmd) Run(f *flags) error {
	dir, err := filepath.Abs(f.Dir)
	if err != nil {
		return err
	}
	if err := stack.MakeVolumes(dir, c.Postgres); err != nil {
		return fmt.Errorf("make keys and secrets: %w", err)
	}
	fmt.Println("keys, certificates and secrets are in", dir)
	return nil
}
