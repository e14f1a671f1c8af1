//go:build !linux

package requires

import "errors"

func memory(string) (int64, string, error) { return 0, "", errors.ErrUnsupported }

func descriptors() (int64, string, error) { return 0, "", errors.ErrUnsupported }
