//go:build !unix

package cli

// CheckOwner has nothing to say: files inherit who may read them.
func CheckOwner(string) error { return nil }
