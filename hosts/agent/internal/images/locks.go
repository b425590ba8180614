package images

import (
	"context"
	"sync"
)

// locks are named locks. Waiting for one ends with the context. The zero value is ready for use.
type locks struct {
	mutex sync.Mutex
	held  map[string]*lock
}

type lock struct {
	token chan struct{}
	users int
}

// acquire waits for the lock with a name.
func (l *locks) acquire(ctx context.Context, name string) (release func(), err error) {
	l.mutex.Lock()
	if l.held == nil {
		l.held = map[string]*lock{}
	}
	named := l.held[name]
	if named == nil {
		named = &lock{token: make(chan struct{}, 1)}
		l.held[name] = named
	}
	named.users++
	l.mutex.Unlock()
	dropUser := func() {
		l.mutex.Lock()
		defer l.mutex.Unlock()
		if named.users--; named.users == 0 {
			delete(l.held, name)
		}
	}
	select {
	case named.token <- struct{}{}:
		return func() {
			<-named.token
			dropUser()
		}, nil
	case <-ctx.Done():
		dropUser()
		return nil, ctx.Err()
	}
}
