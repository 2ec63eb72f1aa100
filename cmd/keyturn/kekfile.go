package main

import (
	"github.com/keyturn/keyturn/cmd/keyturn/internal/server"
	"github.com/keyturn/keyturn/rotation"
)

// readKEKs reads the KEKs from the file that name names or, if path is empty, from what the
// environment names: a file, or the KEKs themselves. Then f is nil. Errors hold nothing of a KEK.
func (a *app) readKEKs(name, path string) (keks *rotation.KEKs, f *inputFile, err error) {
	source, text := "the file of "+name, []byte(nil)
	if path == "" {
		var env string
		if path, env, err = a.kekFromEnv(); err != nil {
			return nil, nil, err
		}
		name, source, text = envKEKFile, envKEK, []byte(env)
	}
	if path != "" {
		if f, err = a.readFile(name, path, "the KEK", holdsSecret); err != nil {
			return nil, nil, err
		}
		source, text = "the file of "+name, f.text
	}
	if keks, err = rotation.ParseKEKs(text); err != nil {
		return nil, nil, usagef("%s: %s", source, errorText(err))
	}
	return keks, f, nil
}

// setKEKs gives rings their KEKs, and the file that they came from.
func (a *app) setKEKs(rings *server.Rings, name, path string) error {
	keks, f, err := a.unseen().readKEKs(name, path) // the server follows it by itself
	if err != nil {
		return err
	}
	rings.KEKs = keks
	if f != nil {
		rings.KEKFile = f.follow(holdsSecret)
	}
	return nil
}

// optionalKEKs is readKEKs, without the file. It returns nil if there is no KEK at all.
func (a *app) optionalKEKs(name, path string) (*rotation.KEKs, error) {
	keks, _, err := a.optionalKEKFile(name, path)
	return keks, err
}

// optionalKEKFile is readKEKs. It returns nil if there is no KEK at all.
func (a *app) optionalKEKFile(name, path string) (*rotation.KEKs, *inputFile, error) {
	_, text := a.env(envKEK)
	_, file := a.env(envKEKFile)
	if path == "" && !text && !file {
		return nil, nil, nil
	}
	return a.readKEKs(name, path)
}
