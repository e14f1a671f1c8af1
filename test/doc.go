// Package test holds the tests of the whole: real agents, real sockets, real files, and the programs of others on both
// sides.
package test
