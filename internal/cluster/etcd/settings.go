package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// restorePause is the least time between two restorations of the settings: others may write
// them in a loop.
const restorePause = time.Second

// SettingsError is why a server can not be a member: the cluster was made with something
// else.
type SettingsError struct {
	Key    string // where etcd has it
	Shards int    // of the cluster
	Own    int    // of the configuration
	Format int    // of what is written in etcd, when this program does not know it; else 0
}

func (e *SettingsError) Error() string {
	if e.Format != 0 {
		return fmt.Sprintf("the cluster was made by a program that writes format %d in etcd, and this one writes format %d; expected programs of the same version for all servers, or another cluster.name", e.Format, format)
	}
	return fmt.Sprintf(`the number of shards is %d, and the cluster was made with %d, which is fixed; set cluster.shards to %d. `+
		`To change it, end all servers of the cluster, delete the key %s in etcd, and start them with the new number: the cars' sessions end, and gateways connect anew`,
		e.Own, e.Shards, e.Shards, e.Key)
}

// agree compares what the cluster was made with and what is configured.
func (s *Store) agree(value []byte) error {
	var got settings
	if err := json.Unmarshal(value, &got); err != nil || got.Format < 1 || got.Shards < 1 {
		return fmt.Errorf("the key %s in etcd is not as this program writes it; expected %s: delete the key, a server of the cluster writes it again", s.keys.settings(), encode(settings{format, s.opts.Shards}))
	}
	if got.Format != format {
		return &SettingsError{Key: s.keys.settings(), Format: got.Format}
	}
	if got.Shards != s.opts.Shards {
		return &SettingsError{Key: s.keys.settings(), Shards: got.Shards, Own: s.opts.Shards}
	}
	return nil
}

// compare compares the settings in etcd with those of this server. One that has never taken part
// gets the error. One that takes part goes on whatever others write there, and writes
// the settings again.
func (s *Store) compare(ctx context.Context, client *clientv3.Client, it item) error {
	err := s.agree(it.value)
	s.mu.Lock()
	if err == nil {
		s.terms = string(it.value)
		s.settingsAreLocked("")
	}
	takesPart, terms := s.takesPart, s.terms
	s.mu.Unlock()
	if err == nil || !takesPart {
		return err
	}
	key := s.keys.settings()
	if later, wait := newer(err), time.Since(s.rewritten) < restorePause; later || wait {
		what := "this server writes it again in a moment"
		if later {
			what = "write it again; to change it, end all servers first"
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.settingsAreLocked(fmt.Sprintf("the key %s in etcd holds %s, and this cluster was made with %s: no shard moves until the key is as before, %s",
			key, shorten(string(it.value)), terms, what))
		return nil
	}
	s.rewritten = time.Now()
	answer, err := client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", it.mod)).Then(clientv3.OpPut(key, terms)).Commit()
	if err != nil {
		return describe(err)
	}
	if answer.Succeeded {
		s.log.Warn("the settings of the cluster in etcd had been changed while its servers run; this one has written them again. "+
			"To change them, end all servers first", "key", key, "found", shorten(string(it.value)), "expected", terms)
	}
	return errAgain
}

// newer tells whether a program of a later version has written the settings, which is to decide then.
func newer(err error) bool {
	var fixed *SettingsError
	return errors.As(err, &fixed) && fixed.Format > format
}

// patience is after what time everything is to be read again.
func (s *Store) patience() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trouble != "" {
		return restorePause
	}
	return readAgain
}

// settingsAreLocked notes what there is to say of the settings, if anything; the caller holds mu.
func (s *Store) settingsAreLocked(trouble string) {
	if trouble != "" && s.trouble == "" {
		s.log.Error("the settings of the cluster in etcd are not those that its servers run with", "reason", trouble)
	}
	s.trouble = trouble
	s.noticeLocked()
}

// found writes what all replicas must agree on, as the first one, or after etcd has lost
// it.
func (s *Store) found(ctx context.Context, client *clientv3.Client) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	key, terms := s.keys.settings(), encode(settings{format, s.opts.Shards})
	answer, err := client.Txn(ctx).If(absent(key)).Then(clientv3.OpPut(key, terms)).Commit()
	if err != nil {
		return describe(err)
	}
	if !answer.Succeeded {
		return errAgain // another one was first
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.takesPart {
		s.log.Warn("the settings of the cluster were gone from etcd; this server has written them again", "key", key, "value", terms)
	}
	s.terms = terms
	s.settingsAreLocked("")
	return nil
}
