package identity

import "io/fs"

// private has nothing to say: the state directory inherits who may read it.
func private(string, fs.FileInfo) error { return nil }
