// Package smalldisk gives tests a disk that can be full: a file system of limited
// size, which says what a disk says when there is no space left on it.
package smalldisk
