//go:build !linux

package spool

func (f osFile) Allocate(size int64) error { return zeros(f.File, size) }
