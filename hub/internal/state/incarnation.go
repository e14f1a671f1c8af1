package state

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
)

// IncarnationKey is where a control state has its name. It is not part of a backup: what is restored counts its revisions anew.
const IncarnationKey = "incarnation"

// Incarnation returns a name that no other control state has, so that a revision of one is not taken for another's. It is given at
// the first call.
func Incarnation(ctx context.Context, s Store) (string, error) {
	for {
		e, err := s.Get(ctx, IncarnationKey)
		if err == nil {
			return string(e.Value), nil
		}
		if errors.Is(err, ErrNotFound) {
			_, err = s.Put(ctx, IncarnationKey, []byte(rand.Text()[:12]), false, Unchanged(0))
		}
		if err != nil && !errors.Is(err, ErrConflict) {
			return "", fmt.Errorf("name the control state: %w", err)
		}
	}
}
