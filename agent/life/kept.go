package life

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/creelhq/creel/report"
)

// Operator is the party whose hold outlives the process.
const Operator = "operator"

// Kept is what of a life outlives the process.
type Kept struct {
	Version int          `json:"version"`         // of this format: 1
	Hold    *report.Hold `json:"hold,omitempty"`  // the operator's; nil: none
	Order   string       `json:"order,omitempty"` // the ID of the hub's last order that was done, so that it is done once
}

const version = 1

// Load reads what Save has written to a file; if it is not there, nothing is kept. With any other error nothing is known.
func Load(file string) (Kept, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return Kept{}, nil
	}
	if err != nil {
		return Kept{}, fmt.Errorf("read what is kept of the agent's life: %w", err)
	}
	var k Kept
	if err := json.Unmarshal(text, &k); err != nil {
		return Kept{}, fmt.Errorf("read what is kept of the agent's life: %s: %w", file, err)
	}
	if k.Version != version {
		return Kept{}, fmt.Errorf("read what is kept of the agent's life: %s has version %d, and this program knows %d", file, k.Version, version)
	}
	return k, nil
}

// Save hands k to save, which writes it as JSON to the file, so that after a crash it is either the old or the new one.
func (k Kept) Save(save func(any) error) error {
	k.Version = version
	if err := save(k); err != nil {
		return fmt.Errorf("keep the agent's life: %w", err)
	}
	return nil
}

// Holds returns the holds that a Machine starts with.
func (k Kept) Holds() []report.Hold {
	if k.Hold == nil {
		return nil
	}
	return []report.Hold{*k.Hold}
}
