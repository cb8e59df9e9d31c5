//go:build !linux

package smalldisk

import "errors"

func mount(string, int) error { return errors.New("this system has no tmpfs") }

func unmount(string) error { return nil }
