// Command bench measures the agent against what this machine can do at all: it reads a file, splits it into lines,
// encodes and sends them in the simplest way there is, and then lets creel-agent do the same, and relay OTLP. Each has one
// processor for itself; the sink and the load have the others. A row is only printed when all records have arrived.
//
// It needs Linux.
package main
