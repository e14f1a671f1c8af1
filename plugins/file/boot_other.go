//go:build !linux

package file

// boot returns "": not known.
func boot() string { return "" }
