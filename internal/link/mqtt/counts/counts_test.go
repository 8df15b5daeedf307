package counts

import (
	"errors"
	"reflect"
	"sync/atomic"
	"testing"
	"time"
)

// Each counter has one place in the state that operators see.
func TestEachIsSeenOnce(t *testing.T) {
	var c Counts
	zero := reflect.ValueOf(c.State())
	counter := reflect.TypeFor[atomic.Uint64]()
	v := reflect.ValueOf(&c).Elem()
	for i := range v.NumField() {
		if v.Type().Field(i).Type != counter {
			continue
		}
		n := v.Field(i).Addr().Interface().(*atomic.Uint64)
		n.Store(7)
		seen := 0
		for j, got := 0, reflect.ValueOf(c.State()); j < got.NumField(); j++ {
			if field := got.Field(j); !reflect.DeepEqual(field.Interface(), zero.Field(j).Interface()) {
				seen++
				if !field.CanUint() || field.Uint() != 7 {
					t.Errorf("%s makes %s %v", v.Type().Field(i).Name, got.Type().Field(j).Name, field)
				}
			}
		}
		if seen != 1 {
			t.Errorf("%s is seen in %d places", v.Type().Field(i).Name, seen)
		}
		n.Store(0)
	}
}

func TestUpAndDown(t *testing.T) {
	var c Counts
	c.Failed(errors.New("refused"))
	c.Disconnected() // it was not up
	if s := c.State(); s.Up || !s.Since.IsZero() || s.LastError != "refused" {
		t.Errorf("%+v", s)
	}
	before := time.Now()
	c.Connected()
	up := c.State()
	if !up.Up || up.Connects != 1 || up.Since.Before(before) {
		t.Errorf("%+v", up)
	}
	c.Disconnected()
	down := c.State()
	c.Disconnected()
	if again := c.State(); down.Up || down.Since.Before(up.Since) || again.Since != down.Since {
		t.Errorf("%+v, then %+v", down, again)
	}
}
