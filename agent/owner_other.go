//go:build !unix

package agent

// CheckOwner has nothing to say: files inherit who may read them.
func CheckOwner(string) error { return nil }
