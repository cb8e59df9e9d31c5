package postgres_test

import (
	"testing"

	"chatelaine.dev/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }
