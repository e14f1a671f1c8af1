package tlsconf

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	interval = time.Second     // between two looks at the files
	settled  = 2 * time.Second // a file that is younger may change again without its time telling; FAT's has steps of 2 s
)

// A source is a value made of files, and made anew when they change. There is no goroutine: whoever asks for the value looks,
// at most once an interval, while others get the one that there is. It may be used concurrently.
type source[T any] struct {
	what  string // for the log
	files []string
	parse func(contents [][]byte) (*T, error)
	ready func(*T, time.Time) error // why a value is of no use at a time; it does not take the place of one that is. May be nil
	log   *slog.Logger
	value atomic.Pointer[T]

	mu       sync.Mutex
	looked   time.Time
	stamps   []os.FileInfo
	young    bool // of the files when they were looked at
	contents [][]byte
	failure  string // of the last look
}

// open reads the files for the first time. A value that is not ready is taken: there is no better one.
func (s *source[T]) open() (*source[T], error) {
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.looked = time.Now()
	contents, err := s.read()
	if err != nil {
		return nil, err
	}
	v, err := s.parse(contents)
	if err != nil {
		return nil, s.wrap(err)
	}
	if s.ready != nil {
		if err := s.ready(v, s.looked); err != nil {
			s.log.Warn("the other side will refuse "+s.what, "files", s.files, "error", err)
		}
	}
	s.contents = contents
	s.value.Store(v)
	return s, nil
}

// get returns the value. It must not be changed.
func (s *source[T]) get() *T {
	if s.mu.TryLock() { // one looks: reading may take its time
		s.look(time.Now())
		s.mu.Unlock()
	}
	return s.value.Load()
}

// look makes the value anew if the files have changed. After a failure it tries each time: what is not valid yet may have
// become so.
func (s *source[T]) look(now time.Time) {
	if now.Sub(s.looked) < interval {
		return
	}
	s.looked = now
	if s.failure == "" && s.unchanged() {
		return
	}
	contents, err := s.read()
	if err == nil && slices.EqualFunc(contents, s.contents, bytes.Equal) {
		s.failure = "" // as it was
		return
	}
	var v *T
	if err == nil {
		if v, err = s.parse(contents); err == nil && s.ready != nil && s.ready(s.value.Load(), now) == nil {
			err = s.ready(v, now)
		}
		err = s.wrap(err)
	}
	if err != nil {
		if err.Error() != s.failure {
			s.failure = err.Error()
			s.log.Warn("keep "+s.what+" as it was: the files have changed, but are of no use", "files", s.files, "error", err)
		}
		return
	}
	s.failure, s.contents = "", contents
	s.value.Store(v)
	s.log.Info("use "+s.what+" that has changed, for new connections", "files", s.files)
}

func (s *source[T]) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("load %s from %s: %w", s.what, strings.Join(s.files, " and "), err)
}

func (s *source[T]) unchanged() bool {
	if s.young {
		return false
	}
	for i, file := range s.files {
		info, err := os.Stat(file)
		if err != nil || !os.SameFile(info, s.stamps[i]) || info.Size() != s.stamps[i].Size() || !info.ModTime().Equal(s.stamps[i].ModTime()) {
			return false
		}
	}
	return true
}

// read reads the files, and remembers how they were before.
func (s *source[T]) read() ([][]byte, error) {
	s.stamps, s.young = s.stamps[:0], false
	var contents [][]byte
	for _, file := range s.files {
		info, err := os.Stat(file)
		if err != nil {
			return nil, fmt.Errorf("load %s: %w", s.what, err)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("load %s: %w", s.what, err)
		}
		s.stamps = append(s.stamps, info)
		s.young = s.young || time.Since(info.ModTime()) < settled
		contents = append(contents, text)
	}
	return contents, nil
}

// newPair reads a certificate and its key.
func newPair(cert, key string, log *slog.Logger) (*source[tls.Certificate], error) {
	return (&source[tls.Certificate]{what: "the certificate", files: []string{cert, key}, log: log, parse: parsePair, ready: valid}).open()
}

func parsePair(contents [][]byte) (*tls.Certificate, error) {
	if _, err := certificates(contents[0]); err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(contents[0], contents[1])
	return &pair, err
}

// valid says why a certificate is not valid at a time.
func valid(c *tls.Certificate, now time.Time) error {
	switch {
	case now.After(c.Leaf.NotAfter):
		return fmt.Errorf("it has expired at %s; put a new one there", c.Leaf.NotAfter.Format(time.RFC3339))
	case now.Before(c.Leaf.NotBefore):
		return fmt.Errorf("it is valid only from %s on; is this machine's clock right?", c.Leaf.NotBefore.Format(time.RFC3339))
	}
	return nil
}

// newAuthorities reads certificates to trust.
func newAuthorities(file string, log *slog.Logger) (*source[x509.CertPool], error) {
	return (&source[x509.CertPool]{what: "the authorities", files: []string{file}, log: log, parse: parseAuthorities}).open()
}

func parseAuthorities(contents [][]byte) (*x509.CertPool, error) {
	blocks, err := certificates(contents[0])
	if err != nil {
		return nil, err
	}
	pool, n := x509.NewCertPool(), 0
	for _, der := range blocks { // as x509.AppendCertsFromPEM: large bundles have some that Go does not know how to read
		if c, err := x509.ParseCertificate(der); err == nil {
			pool.AddCert(c)
			n++
		}
	}
	if n == 0 {
		return nil, errors.New("there is no certificate that can be read")
	}
	return pool, nil
}

// certificates returns the certificates in PEM text. Unlike crypto/tls and x509 it does not pass over what is cut off, as files
// are while they are written.
func certificates(text []byte) ([][]byte, error) {
	var list [][]byte
	begun, whole := bytes.Count(text, []byte("-----BEGIN ")), 0
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		whole++
		if block.Type == "CERTIFICATE" {
			list = append(list, block.Bytes)
		}
	}
	switch {
	case whole < begun:
		return nil, fmt.Errorf("of %d PEM blocks %d are damaged or cut off", begun, begun-whole)
	case len(list) == 0:
		return nil, errors.New("there is no certificate in it: PEM has lines that say BEGIN CERTIFICATE")
	}
	return list, nil
}
