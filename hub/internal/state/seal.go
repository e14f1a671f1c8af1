package state

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
)

// A Secret is what hubs of one control state know beside it. Keys lie there sealed: who reads the control state, a copy of it
// or its disk has none of them.
type Secret [32]byte

// ErrOtherSecret is what Open fails with.
var ErrOtherSecret = errors.New("it was sealed with another secret, or is damaged; hubs with one control state need one file secret in their state directories: copy it from the hub that was there first, or let this one join it: creel hub --join")

// Seal encrypts a value for a key of the control state, under which it is found again (AES-256-GCM).
func (s *Secret) Seal(key string, value []byte) []byte {
	return s.cipher().Seal(nil, nil, value, []byte(key))
}

// Open is the reverse. The error is ErrOtherSecret.
func (s *Secret) Open(key string, sealed []byte) ([]byte, error) {
	value, err := s.cipher().Open(nil, nil, sealed, []byte(key))
	if err != nil {
		return nil, ErrOtherSecret
	}
	return value, nil
}

func (s *Secret) cipher() cipher.AEAD {
	block, err := aes.NewCipher(s[:])
	if err != nil {
		panic("BUG: " + err.Error())
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return aead
}
