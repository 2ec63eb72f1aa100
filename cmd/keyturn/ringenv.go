package main

import (
	"strings"
)

// The names in the environment that stand for --redis and --kek-file.
const (
	envRedis   = "KEYTURN_REDIS"
	envKEKFile = "KEYTURN_KEK_FILE"
)

// fromEnv gives --redis the value of KEYTURN_REDIS if the flag was not given. others are the flags
// that name another source of keys: if one of them was given, the environment does not count.
//
// Where the environment has both a Redis and a secret, nothing says which is meant, and a guess would
// sign with the wrong key. So that is an error. A command that takes no secret passes secrets as
// false.
func (r *ringFlags) fromEnv(a *app, secrets bool, others ...bool) error {
	for _, other := range others {
		if other {
			return nil
		}
	}
	value, ok := a.env(envRedis)
	if r.redis.given || !ok {
		return nil
	}
	if err := r.redis.Set(value); err != nil {
		return usagef("%s: %v", envRedis, err)
	}
	if !secrets {
		return nil
	}
	for _, name := range []string{envSecret, envMastraSecret} {
		if _, ok := a.env(name); ok {
			return usagef("%s and %s are both set: give --redis or --secret-file, or unset one of them", envRedis, name)
		}
	}
	return nil
}

// kekFromEnv returns where the environment has the KEKs: the path of a file, or else their text.
func (a *app) kekFromEnv() (path, text string, err error) {
	text, hasText := a.env(envKEK)
	path, hasPath := a.env(envKEKFile)
	switch {
	case hasText && hasPath:
		return "", "", usagef("%s and %s are both set: unset one of them", envKEK, envKEKFile)
	case hasPath:
		p := newPath()
		if err := p.Set(path); err != nil {
			return "", "", usagef("%s: %v", envKEKFile, err)
		}
		return path, "", nil
	case hasText:
		return "", text, nil
	}
	return "", "", usagef("no KEK to open the ring with: give --kek-file, or set %s", strings.Join([]string{envKEKFile, envKEK}, " or "))
}
