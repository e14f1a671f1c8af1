package authority

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/creelhq/creel/api"
	"github.com/creelhq/creel/hub/internal/state"
)

// attempts is how often a change is tried while other hubs renew what is not concerned.
const attempts = 5

// Change takes a step of changing the authority; behind is how many agents are known not to trust yet what Bundle says. The
// error is an *api.Error when the request is to blame, or the control state is away.
//
// While certificates come from a new root, agents that do not know it yet follow the signature of the old one to it. Without the
// old root's key there is none: then they have to have heard of the new root before. Describe warns.
func (a *Authority) Change(ctx context.Context, c api.AuthorityChange, behind int) error {
	steps := map[string]func(context.Context, *set) error{
		"rotate": a.rotate,
		"renew":  a.renew,
		"back":   a.back,
		"next": func(ctx context.Context, s *set) error {
			if behind > 0 && !c.Force && s.record.Phase != steady {
				return conflict("agents that do not trust yet what is trusted now, and would be left behind: %d; wait until they have renewed, or force it", behind)
			}
			return a.next(ctx, s)
		},
	}
	step := steps[c.Step]
	if step == nil {
		return &api.Error{Code: "bad_request", Message: fmt.Sprintf("there is no step %q: they are rotate, next, back and renew", c.Step)}
	}
	phase := ""
	for range attempts {
		e, err := a.o.Store.Get(ctx, recordKey)
		if err != nil {
			return away(err)
		}
		s, err := a.read(e)
		if err != nil {
			return fmt.Errorf("change the authority: %w", err)
		}
		if phase != "" && s.record.Phase != phase {
			break
		}
		phase = s.record.Phase
		err = step(ctx, s)
		if err == nil {
			a.o.Log.Info("changed the authority", "step", c.Step, "phase", a.set.Load().record.Phase, "fingerprint", a.Fingerprint())
			return nil
		}
		if !errors.Is(err, state.ErrConflict) {
			return err
		}
	}
	return conflict("somebody else has changed the authority meanwhile: look at it and ask again")
}

func conflict(format string, args ...any) error {
	return &api.Error{Code: "conflict", Message: fmt.Sprintf(format, args...)}
}

func away(err error) error {
	return &api.Error{Code: "unavailable", Message: fmt.Sprintf("the control state cannot do this now: %v; try again", err)}
}

// swap puts r in the place of the record of s. The error is state.ErrConflict or an *api.Error.
func (a *Authority) swap(ctx context.Context, s *set, r *record) error {
	r.Version = version
	_, err := a.write(ctx, r, s.revision)
	if err != nil && !errors.Is(err, state.ErrConflict) {
		return away(err)
	}
	return err
}

// rotate makes a new root, to be trusted beside the old.
func (a *Authority) rotate(ctx context.Context, s *set) error {
	if s.record.Phase != steady {
		return conflict("a change is under way already, in phase %s: go on with it, or go back", s.record.Phase)
	}
	now := a.o.Now()
	fresh, err := newRoot(now)
	if err != nil {
		return err
	}
	keys, err := a.keys()
	if err != nil {
		return err
	}
	if err := fresh.root.cross(s.issues.root, keys, now); err != nil {
		return err
	}
	r := s.record
	r.Phase, r.Roots = announced, append(slices.Clone(r.Roots), fresh.root)
	return a.introduce(ctx, fresh, func() error { return a.swap(ctx, s, &r) })
}

// cross has r signed by the root before, if that has not ended and its key is there.
func (r *root) cross(before *x509.Certificate, keys []rootKey, now time.Time) error {
	k := find(keys, before)
	if k == nil || !now.Before(before.NotAfter) {
		return nil
	}
	return r.crossSign(before, k, now)
}

// next goes on to the next phase.
func (a *Authority) next(ctx context.Context, s *set) error {
	r := s.record
	switch r.Phase {
	case announced:
		r.Phase = issuing
	case issuing:
		now := a.o.Now()
		r.Phase, r.Retired = steady, slices.Clone(r.Retired)
		for _, der := range append(slices.Clone(r.Withdrawn), r.Roots[0].Certificate) {
			r.Retired = append(r.Retired, retired{der, now})
		}
		r.Roots, r.Withdrawn = r.Roots[1:], nil
		r.Retired = r.Retired[max(0, len(r.Retired)-maxRetired):]
	default:
		return conflict("there is no change to go on with: begin one with rotate")
	}
	return a.swap(ctx, s, &r)
}

// back goes back a phase. Agents that have certificates of a root that is taken back can still come in: to renew, which the
// other bundle makes them do.
func (a *Authority) back(ctx context.Context, s *set) error {
	r := s.record
	switch r.Phase {
	case issuing:
		r.Phase = announced
	case announced:
		r.Phase, r.Withdrawn = steady, append(slices.Clone(r.Withdrawn), r.Roots[1].Certificate)
		r.Roots = r.Roots[:1]
		r.Withdrawn = r.Withdrawn[max(0, len(r.Withdrawn)-maxWithdrawn):]
	default:
		return conflict("there is nothing to go back from: the last change is done, and the root before it is forgotten; rotate again if need be")
	}
	return a.swap(ctx, s, &r)
}

// renew makes the intermediate that issues anew.
func (a *Authority) renew(ctx context.Context, s *set) error {
	keys, err := a.keys()
	if err != nil {
		return err
	}
	k := find(keys, s.issues.root)
	if k == nil {
		return conflict("the key of root %s is not at this hub: put root.key back as %s, or ask the hub that has it; if it is lost, rotate", fingerprint(s.issues.root.Raw), a.keyFile())
	}
	r := s.record
	r.Roots = slices.Clone(r.Roots)
	if err := r.Roots[slices.Index(s.roots, s.issues)].renew(k, a.o.Now()); err != nil {
		return err
	}
	return a.swap(ctx, s, &r)
}

// tend renews what ends, signs a new root that another hub has made, and removes keys of roots that are out of use, all as far as
// there are keys for it. That another hub is faster is no error.
func (a *Authority) tend(ctx context.Context) error {
	keys, err := a.keys()
	if err != nil || len(keys) == 0 {
		return err
	}
	s, now := a.set.Load(), a.o.Now()
	r := s.record
	r.Roots = slices.Clone(r.Roots)
	changed := false
	for i, one := range s.roots {
		if k := find(keys, one.root); k != nil && one.due(now) {
			if err := r.Roots[i].renew(k, now); err != nil {
				return err
			}
			a.o.Log.Info("renew the authority's certificate in use", "ended", one.intermediate.NotAfter)
			changed = true
		}
	}
	if len(r.Roots) == 2 && r.Roots[1].Cross == nil {
		if err := r.Roots[1].cross(s.roots[0].root, keys, now); err != nil {
			return err
		}
		changed = changed || r.Roots[1].Cross != nil
	}
	if changed {
		if err := a.swap(ctx, s, &r); err != nil && !errors.Is(err, state.ErrConflict) {
			return err
		}
	}
	return a.editKeys(func(keys []rootKey) []rootKey {
		for _, c := range slices.Concat(s.withdrawn, s.retired) {
			if k := find(keys, c); k != nil {
				keys = without(keys, k)
			}
		}
		return keys
	})
}

// due reports whether the intermediate is to be renewed: at two thirds of its life, if that gains anything.
func (i *issuer) due(now time.Time) bool {
	return late(i.intermediate, intermediateLife, now) && i.root.NotAfter.Sub(i.intermediate.NotAfter) > 24*time.Hour && now.Before(i.root.NotAfter)
}

// late reports whether a third of a certificate's life is left, or less.
func late(c *x509.Certificate, life time.Duration, now time.Time) bool {
	return c.NotAfter.Sub(now) <= life/3
}

// warnings says what somebody should do something about. rootKey is whether the key of the root that issues is here, as file.
func (s *set) warnings(now time.Time, rootKey bool, file string) []string {
	var list []string
	say := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	ends := func(c *x509.Certificate) string {
		if left := c.NotAfter.Sub(now); left > 0 {
			return fmt.Sprintf("ends on %s, in %d days", c.NotAfter.Format("2006-01-02"), int(left/(24*time.Hour)))
		}
		return "has ended on " + c.NotAfter.Format("2006-01-02")
	}
	i := s.issues
	if now.Before(i.intermediate.NotBefore) {
		say("this hub's clock says %s, but its authority begins only on %s: set the clock right, until then nobody is certified", now.Format(time.RFC3339), i.intermediate.NotBefore.Format(time.RFC3339))
	}
	if late(i.root, rootLife, now) {
		say("the root %s, from which all certificates of this hub and its agents come, %s; then nobody can come in any more, and every agent has to join again: rotate the authority while all agents can hear of it", fingerprint(i.root.Raw), ends(i.root))
	}
	switch {
	case !late(i.intermediate, intermediateLife, now):
	case i.root.NotAfter.Sub(i.intermediate.NotAfter) <= 24*time.Hour: // it can last no longer than its root, of which is warned
	case rootKey:
		say("the authority's certificate in use %s, and could not be renewed, although the root's key is here: the hub's log says why", ends(i.intermediate))
	default:
		say("the authority's certificate in use %s; then nobody is certified any more. It renews itself where the root's key is: put root.key back as %s, of this hub or of the one that has made it, or rotate the authority if it is lost", ends(i.intermediate), file)
	}
	if len(s.roots) == 2 && s.roots[1].cross == nil && now.Before(s.roots[0].root.NotAfter) {
		say("the new root is not signed by the old, whose key was not here: agents that have not heard of the new root cannot verify this hub once certificates come from it. Put root.key of the old root back as %s, or wait until all agents have confirmed", file)
	}
	return list
}
