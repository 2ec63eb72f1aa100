package main

import (
	"github.com/keyturn/keyturn/cmd/keyturn/internal/server"
	"github.com/keyturn/keyturn/rotation"
)

// readKEKs reads the KEKs from the file that name names or, if path is empty, from the environment.
// Then f is nil. Errors hold nothing of a KEK.
func (a *app) readKEKs(name, path string) (keks *rotation.KEKs, f *inputFile, err error) {
	var text []byte
	source := "the file of " + name
	if path != "" {
		if f, err = a.readFile(name, path, "the KEK", holdsSecret); err != nil {
			return nil, nil, err
		}
		text = f.text
	} else {
		env, ok := a.env(envKEK)
		if !ok {
			return nil, nil, usagef("no KEK to open the ring with: give --kek-file, or set %s", envKEK)
		}
		source, text = envKEK, []byte(env)
	}
	if keks, err = rotation.ParseKEKs(text); err != nil {
		return nil, nil, usagef("%s: %s", source, errorText(err))
	}
	return keks, f, nil
}

// setKEKs gives rings their KEKs, and the file that they came from.
func (a *app) setKEKs(rings *server.Rings, name, path string) error {
	keks, f, err := a.readKEKs(name, path)
	if err != nil {
		return err
	}
	rings.KEKs = keks
	if f != nil {
		rings.KEKFile = f.follow(holdsSecret)
	}
	return nil
}
