package authority

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/creelhq/creel/agent"
)

// A rootKey signs intermediates. During a change there are two in one file.
type rootKey = *ecdsa.PrivateKey

func (a *Authority) keyFile() string { return filepath.Join(a.o.Dir, "root.key") }

// keys reads root.key. That it is not there is no error.
func (a *Authority) keys() ([]rootKey, error) {
	text, err := os.ReadFile(a.keyFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the root's key: %w", err)
	}
	var list []rootKey
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		one, ok := k.(*ecdsa.PrivateKey)
		if err != nil || !ok {
			return nil, fmt.Errorf("read the root's key from %s: a block %s in it is no ECDSA key in PKCS #8: put the file back as it was, or move it away", a.keyFile(), block.Type)
		}
		list = append(list, one)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("read the root's key from %s: there is no key in PEM in it: put the file back as it was, or move it away", a.keyFile())
	}
	return list, nil
}

// editKeys replaces what is in root.key. Without keys there is no file.
func (a *Authority) editKeys(f func([]rootKey) []rootKey) error {
	a.files.Lock()
	defer a.files.Unlock()
	old, err := a.keys()
	if err != nil {
		return err
	}
	keys := f(slices.Clone(old))
	if len(keys) == len(old) { // it only adds or takes away
		return nil
	}
	if len(keys) == 0 {
		if err := os.Remove(a.keyFile()); err != nil {
			return fmt.Errorf("remove the key of a root that is not used any more: %w", err)
		}
		return nil
	}
	var text []byte
	for _, k := range keys {
		der, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			return fmt.Errorf("write the root's key: %w", err)
		}
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...)
	}
	if err := os.MkdirAll(a.o.Dir, 0o700); err != nil {
		return fmt.Errorf("write the root's key: %w", err)
	}
	if err := agent.WriteFile(a.keyFile(), text); err != nil {
		return fmt.Errorf("write the root's key: %w", err)
	}
	return nil
}

// find returns a root's key, nil if it is not among keys.
func find(keys []rootKey, root *x509.Certificate) rootKey {
	i := slices.IndexFunc(keys, func(k rootKey) bool { return k.PublicKey.Equal(root.PublicKey) })
	if i < 0 {
		return nil
	}
	return keys[i]
}

func without(keys []rootKey, k rootKey) []rootKey {
	return slices.DeleteFunc(keys, func(one rootKey) bool { return one.Equal(k) })
}
