package broker

import (
	"errors"
	"fmt"
	"log/slog"
)

var errUserGone = errors.New("the user is no longer configured, or for other topics")

// byName checks the users.
func byName(list []User) (map[string]User, error) {
	users := make(map[string]User, len(list))
	for i, u := range list {
		switch {
		case u.Name == "":
			return nil, fmt.Errorf("embedded_broker.users[%d]: a user needs a name", i)
		case u.Password == "":
			return nil, fmt.Errorf("embedded_broker.users[%d]: user %s needs a password", i, u.Name)
		case users[u.Name].Name != "":
			return nil, fmt.Errorf("embedded_broker.users[%d]: user %s is given twice", i, u.Name)
		}
		users[u.Name] = u
	}
	return users, nil
}

// user returns the user of that name; without users, one without restrictions.
func (b *Broker) user(name []byte) User { return (*b.users.Load())[string(name)] }

// SetUsers puts other users in force. Clients whose user is gone or restricted
// in another way are disconnected; a changed password counts from the next connection
// on. On error nothing has changed.
func (b *Broker) SetUsers(list []User) error {
	users, err := byName(list)
	if err != nil {
		return err
	}
	old := *b.users.Swap(&users)
	if b.server == nil {
		return nil
	}
	for _, cl := range b.server.Clients.GetAll() {
		if cl.Net.Inline {
			continue
		}
		name := string(cl.Properties.Username)
		is, stays := users[name]
		if len(users) == 0 || stays && (len(old) == 0 || is.Car == old[name].Car && is.Prefix == old[name].Prefix) {
			continue
		}
		b.log.Info("embedded broker disconnects a client: its user was removed or restricted in another way",
			slog.String("user", name), slog.String("remote", cl.Net.Remote))
		cl.Stop(errUserGone)
	}
	return nil
}
