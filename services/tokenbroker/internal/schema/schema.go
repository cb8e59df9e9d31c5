package schema

import (
	"embed"
	"io/fs"

	"chatelaine.dev/internal/postgres"
)

//go:embed migrations/*.sql
var files embed.FS

// Name of the schema that the broker owns.
const Name = "tokenbroker"

// Migrations returns the broker's migrations.
func Migrations() postgres.Migrations {
	sub, err := fs.Sub(files, "migrations")
	if err != nil {
		panic(err) // the path is a constant that embed has checked
	}
	return postgres.Migrations{FS: sub, Schema: Name, Command: "tokenbroker migrate"}
}
