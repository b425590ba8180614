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

// take waits for the lock with a name.
func (l *locks) take(ctx context.Context, name string) (release func(), err error) {
	l.mutex.Lock()
	if l.held == nil {
		l.held = map[string]*lock{}
	}
	wanted := l.held[name]
	if wanted == nil {
		wanted = &lock{token: make(chan struct{}, 1)}
		l.held[name] = wanted
	}
	wanted.users++
	l.mutex.Unlock()
	leave := func() {
		l.mutex.Lock()
		defer l.mutex.Unlock()
		if wanted.users--; wanted.users == 0 {
			delete(l.held, name)
		}
	}
	select {
	case wanted.token <- struct{}{}:
		return func() {
			<-wanted.token
			leave()
		}, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
