//go:build !linux

package metric

func processOS(*Set) {}
