package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	promoteEvery = 200 * time.Millisecond // a learner asks whether it is up to date
	changeWithin = 10 * time.Second       // a change of members is done, or has failed
)

func hex(id uint64) string { return strconv.FormatUint(id, 16) }

// Members asks the members of a cluster outside.
func (s *etcd) Members(ctx context.Context) ([]Member, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	resp, err := s.client.MemberList(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the members of etcd: %w", err)
	}
	list := make([]Member, len(resp.Members))
	var wg sync.WaitGroup
	for i, m := range resp.Members {
		list[i] = Member{ID: hex(m.ID), Name: m.Name, Peer: first(m.PeerURLs), Learner: m.IsLearner}
		if len(m.ClientURLs) == 0 {
			continue
		}
		wg.Go(func() {
			status, err := s.client.Status(ctx, m.ClientURLs[0])
			if err != nil {
				return // it is not healthy
			}
			list[i].Healthy, list[i].Leader, list[i].Size = true, status.Leader == m.ID, status.DbSize
		})
	}
	wg.Wait()
	if alarms, err := s.client.AlarmList(ctx); err == nil { // else nobody is known to be full
		note(list, alarms.Alarms)
	}
	return list, nil
}

// note marks members that are full.
func note(list []Member, alarms []*pb.AlarmMember) {
	for _, a := range alarms {
		for i := range list {
			if a.Alarm == pb.AlarmType_NOSPACE && list[i].ID == hex(a.MemberID) {
				list[i].Full = true
			}
		}
	}
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// Members says what this member knows, also when there are too few to decide anything.
func (s *embedded) Members(ctx context.Context) ([]Member, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	server := s.server.Server
	var list []Member
	for _, m := range server.Cluster().Members() {
		list = append(list, Member{ID: m.ID.String(), Name: m.Name, Peer: first(m.PeerURLs), Learner: m.IsLearner, Self: m.ID == server.MemberID(), Leader: m.ID == server.Leader()})
	}
	var wg sync.WaitGroup
	for i := range list {
		if m := &list[i]; m.Self {
			m.Healthy, m.Size = server.Leader() != 0, s.Size()
		} else if m.Name != "" && s.peers != nil {
			wg.Go(func() { m.Healthy = s.ask(ctx, m.Peer+"/version", nil) == nil })
		}
	}
	wg.Wait()
	note(list, server.Alarms())
	return list, nil
}

// ask asks another member for JSON.
func (s *embedded) ask(ctx context.Context, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := s.peers.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// ID returns that of this member.
func (s *embedded) ID() string { return s.server.Server.MemberID().String() }

// Size returns that of this member.
func (s *embedded) Size() int64 { return s.server.Server.Backend().Size() }

// Add adds a member, or finds the one that is there.
func (s *embedded) Add(ctx context.Context, j Joiner) (id string, peers []string, err error) {
	if s.o.Member == nil {
		return "", nil, ErrAlone
	}
	ctx, cancel := context.WithTimeout(ctx, changeWithin)
	defer cancel()
	resp, err := s.client.MemberList(ctx)
	if err != nil {
		return "", nil, fmt.Errorf("list the members of etcd: %w", err)
	}
	for _, m := range resp.Members {
		at := slices.Contains(m.PeerURLs, j.Peer)
		switch {
		case m.Name == j.Name && hex(m.ID) == j.ID, m.Name == "" && hex(m.ID) == j.ID:
			id = j.ID
			peers = append(peers, j.Peer) // where it is from now on
			continue
		case m.Name == j.Name, m.Name == "" && (at || j.Before != "" && slices.Contains(m.PeerURLs, j.Before)): // its data is gone, or it never had any
			if err := s.remove(ctx, hex(m.ID)); err != nil {
				return "", nil, fmt.Errorf("remove the member that the hub had before: %w", err)
			}
			continue
		case at:
			return "", nil, fmt.Errorf("hub %s is reached at %s: two hubs cannot have one address", m.Name, j.Peer)
		}
		peers = append(peers, m.PeerURLs...)
	}
	if id != "" {
		return id, peers, nil
	}
	for {
		added, err := s.client.MemberAddAsLearner(ctx, []string{j.Peer})
		if err == nil {
			return hex(added.Member.ID), append(peers, j.Peer), nil
		}
		if !errors.Is(err, rpctypes.ErrMemberNotFound) { // that of the member just removed: ids are made of the address and the second
			return "", nil, fmt.Errorf("add a member to etcd: %w", err)
		}
		select {
		case <-time.After(promoteEvery):
		case <-ctx.Done():
			return "", nil, fmt.Errorf("add a member to etcd: %w", err)
		}
	}
}

// Remove removes a hub's member.
func (s *embedded) Remove(ctx context.Context, name string) error {
	for _, m := range s.server.Server.Cluster().Members() {
		if m.Name == name {
			return s.remove(ctx, m.ID.String())
		}
	}
	return ErrNotFound
}

// remove removes a member if those that are left can go on.
func (s *embedded) remove(ctx context.Context, id string) error {
	list, err := s.Members(ctx)
	if err != nil {
		return err
	}
	left, work := 0, 0
	var gone Member
	for _, m := range list {
		switch {
		case m.ID == id:
			gone = m
		case !m.Learner:
			left++
			if m.Healthy {
				work++
			}
		}
	}
	switch {
	case gone.Learner:
	case left == 0:
		return errors.New("it is the only one that keeps the control state")
	case work <= left/2:
		return fmt.Errorf("only %d of the %d others answer, and they could not go on: start those first", work, left)
	}
	n, err := strconv.ParseUint(id, 16, 64)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, changeWithin)
	defer cancel()
	if _, err := s.client.MemberRemove(ctx, n); err != nil && (!gone.Self || s.server.Server.IsMemberExist(s.server.Server.MemberID())) { // the one that is gone gives no answer
		return fmt.Errorf("remove a member of etcd: %w", err)
	}
	return nil
}

// settle tells the others where this member is, if that is not where it was, and makes it one that counts.
func (s *embedded) settle(ctx context.Context) error {
	server, m := s.server.Server, s.o.Member
	if me := server.Cluster().Member(server.MemberID()); me != nil && !slices.Equal(me.PeerURLs, []string{m.Advertise}) {
		if _, err := s.client.MemberUpdate(ctx, uint64(server.MemberID()), []string{m.Advertise}); err != nil {
			return fmt.Errorf("tell other hubs the new address: %w", err)
		}
	}
	for said := false; server.IsLearner(); {
		_, err := s.client.MemberPromote(ctx, uint64(server.MemberID()))
		if err != nil && !said {
			s.o.Log.Info("being brought up to date by the other hubs", "state", err)
			said = true
		}
		select {
		case <-time.After(promoteEvery):
		case <-server.StopNotify():
			return s.why(ctx)
		case <-ctx.Done():
			return fmt.Errorf("wait to be up to date with the other hubs: %w; start again: it goes on from there", context.Cause(ctx))
		}
	}
	return nil
}

// why says why etcd has ended by itself. A member that was removed while it did not run hears no more from the others than that
// they will have nothing to do with it: so it asks whether it is one of theirs.
func (s *embedded) why(ctx context.Context) error {
	server := s.server.Server
	if !server.IsMemberExist(server.MemberID()) {
		return ErrRemoved
	}
	for _, m := range server.Cluster().Members() {
		if m.ID == server.MemberID() || s.peers == nil {
			continue
		}
		var theirs []struct {
			ID uint64 `json:"id"`
		}
		if s.ask(ctx, first(m.PeerURLs)+"/members", &theirs) != nil {
			continue
		}
		for _, t := range theirs {
			if t.ID == uint64(server.MemberID()) {
				return errEnded
			}
		}
		return ErrRemoved
	}
	return errEnded
}

var errEnded = errors.New("etcd has ended: the log says why")

// hint says what to do about an error of the start.
func (s *embedded) hint(err error) string {
	switch {
	case s.o.Member == nil:
		return ""
	case errors.Is(err, syscall.EADDRINUSE):
		return "; let hubs reach this one at another address: --etcd-listen"
	case len(s.o.Member.Cluster) > 0 && !HasMember(s.o.Dir):
		return "; the other hubs must run and be reached from here at " + fmt.Sprint(s.o.Member.Cluster) + ". If there are others by now, join again"
	}
	return ""
}

// tend frees room when there is none, until the Store is closed.
func (s *embedded) tend() {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for said := false; ; {
		select {
		case <-s.ctx.Done():
			return
		case <-s.full:
		case <-tick.C:
		}
		full := s.isFull()
		if full && !said {
			s.o.Log.Error("the control state is full: nothing can be written to it", "bytes", s.server.Server.Backend().Size(), "most", s.o.Quota)
		}
		said = full
		if !full {
			continue
		}
		if err := s.relieve(s.ctx); err != nil && s.ctx.Err() == nil {
			s.o.Log.Warn("make room in the control state; will try again", "error", err)
		}
	}
}

// Full reports whether any member has no room: then none takes anything.
func (s *embedded) Full() bool {
	return slices.ContainsFunc(s.server.Server.Alarms(), func(a *pb.AlarmMember) bool { return a.Alarm == pb.AlarmType_NOSPACE })
}

// isFull reports whether this member has none.
func (s *embedded) isFull() bool {
	return slices.ContainsFunc(s.server.Server.Alarms(), func(a *pb.AlarmMember) bool {
		return a.Alarm == pb.AlarmType_NOSPACE && a.MemberID == uint64(s.server.Server.MemberID())
	})
}

// relieve forgets old revisions, and when a tenth of the database is free then, gives that back and lets writes in again.
func (s *embedded) relieve(ctx context.Context) error {
	server := s.server.Server
	resp, err := s.client.Get(ctx, root+"incarnation", clientv3.WithSerializable())
	if err != nil {
		return err
	}
	if first := server.KV().FirstRev(); first < resp.Header.Revision {
		if _, err := s.client.Compact(ctx, resp.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
			return fmt.Errorf("compact: %w", err)
		}
	}
	server.Backend().ForceCommit()
	if server.Backend().SizeInUse() > s.o.Quota*9/10 {
		return nil // somebody must delete something
	}
	if err := server.Defragment(); err != nil {
		return fmt.Errorf("defragment: %w", err)
	}
	if _, err := s.client.AlarmDisarm(ctx, &clientv3.AlarmMember{MemberID: uint64(server.MemberID()), Alarm: pb.AlarmType_NOSPACE}); err != nil {
		return fmt.Errorf("take back the alarm: %w", err)
	}
	s.o.Log.Info("there is room in the control state again", "bytes", server.Backend().Size(), "most", s.o.Quota)
	return nil
}
