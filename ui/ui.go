// Package ui is the hub's web pages, as they are built from the sources beside it: dist is what `npm run build` makes of
// src, and is committed, so that building creel needs no Node.
//
// The pages know the hub's API alone.
package ui

import (
	"embed"
	"io/fs"
)

//go:embed all:dist
var dist embed.FS

// Files returns the pages: index.html and what it refers to.
func Files() fs.FS {
	files, err := fs.Sub(dist, "dist")
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return files
}
