// Package trace is creel's own small instrument for traces: spans, and the context that they pass on, as W3C Trace Context
// and B3 write it.
//
// It knows nothing of what is traced, nor of where spans go.
package trace
