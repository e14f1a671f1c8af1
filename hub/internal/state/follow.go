package state

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// followPause is between two attempts to watch.
const followPause = time.Second

// Follow calls one with every change under a prefix after a revision, in order, until ctx is done. When it cannot know all
// changes, because the watch broke, it calls all with everything that is there, as of a revision, and goes on from that.
func Follow(ctx context.Context, s Store, prefix string, after int64, log *slog.Logger, all func([]Entry, int64), one func(Entry)) {
	for {
		err := s.Watch(ctx, prefix, after, func(e Entry) error {
			after = e.Revision
			one(e)
			return nil
		})
		for pause := !errors.Is(err, ErrCompacted); ctx.Err() == nil; pause = true {
			if pause {
				log.Warn("watch control state; will try again", "prefix", prefix, "error", err)
				select {
				case <-time.After(followPause):
				case <-ctx.Done():
					return
				}
			}
			var list []Entry
			var revision int64
			if list, revision, err = s.List(ctx, prefix); err == nil {
				after = revision
				all(list, revision)
				break
			}
		}
		if ctx.Err() != nil {
			return
		}
	}
}
