package rediskeys_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/keyturn/keyturn/rotation/rediskeys"
)

func TestOpenServer(t *testing.T) {
	for _, tt := range []struct {
		url, addr, user, password string
		db                        int
		tls                       bool
	}{
		{url: "redis://localhost", addr: "localhost:6379"},
		{url: "redis://localhost/", addr: "localhost:6379"},
		{url: "redis://127.0.0.1:1/15", addr: "127.0.0.1:1", db: 15},
		{url: "rediss://h:2", addr: "h:2", tls: true},
		{url: "REDIS://h", addr: "h:6379"},
		{url: "redis://[::1]:3", addr: "[::1]:3"},
		{url: "redis://[::1]", addr: "[::1]:6379"},
		{url: "redis://u:p@h", addr: "h:6379", user: "u", password: "p"},
		{url: "redis://:p@h", addr: "h:6379", password: "p"},
		{url: "redis://u:p%2F%3A%40:@x@h", addr: "h:6379", user: "u", password: "p/:@:@x"},
	} {
		client, err := rediskeys.Open(tt.url)
		if err != nil {
			t.Errorf("%s: %v", tt.url, err)
			continue
		}
		client.Close()
		o := client.(*redis.Client).Options()
		if o.Addr != tt.addr || o.Username != tt.user || o.Password != tt.password || o.DB != tt.db || (o.TLSConfig != nil) != tt.tls {
			t.Errorf("%s: address %q, user %q, password %q, database %d, TLS %v", tt.url, o.Addr, o.Username, o.Password, o.DB, o.TLSConfig != nil)
		}
	}
}

func TestOpenCluster(t *testing.T) {
	client, err := rediskeys.Open("rediss-cluster://u:p@a,b:7,[::1]:8/0")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	o := client.(*redis.ClusterClient).Options()
	if !slices.Equal(o.Addrs, []string{"a:6379", "b:7", "[::1]:8"}) || o.Username != "u" || o.Password != "p" || o.TLSConfig == nil {
		t.Errorf("addresses %q, user %q, password %q, TLS %v", o.Addrs, o.Username, o.Password, o.TLSConfig != nil)
	}
	one, err := rediskeys.Open("redis-cluster://a")
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	if _, ok := one.(*redis.ClusterClient); !ok {
		t.Errorf("one seed of a Cluster made a %T", one)
	}
}

func TestOpenSentinel(t *testing.T) {
	client, err := rediskeys.Open("redis-sentinel://u:p@a,b:7/my%20master/3?sentinel_username=s&sentinel_password=t")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if o := client.(*redis.Client).Options(); o.DB != 3 || o.Username != "u" || o.Password != "p" {
		t.Errorf("database %d, user %q, password %q", o.DB, o.Username, o.Password)
	}
}

// The error of a bad URL may go to a log or a terminal, so it must not show the password.
func TestOpenNeverShowsPassword(t *testing.T) {
	const secret = "s3cr3t"
	for _, url := range []string{
		"",
		secret,
		"http://u:" + secret + "@h",
		"redis-://u:" + secret + "@h",
		"redis-other://u:" + secret + "@h",
		"redis://u:" + secret + "%@h",
		"redis://u:" + secret + "/x@h",
		"redis://u:1/" + secret + "@h",
		"redis://u:" + secret + "?x@h",
		"redis://u:1?" + secret + "@h",
		"redis://u:" + secret,
		"redis://u:" + secret + "@",
		"redis://u:" + secret + "@h:x",
		"redis://u:" + secret + "@h:0",
		"redis://u:" + secret + "@h:65536",
		"redis://u:" + secret + "@a,b",
		"redis://u:" + secret + "@a:b:c",
		"redis://u:" + secret + "@h/x",
		"redis://u:" + secret + "@h/-1",
		"redis://u:" + secret + "@h/1/2",
		"redis://h?password=" + secret,
		"redis://h?sentinel_password=" + secret,
		"redis-cluster://u:" + secret + "@h/1",
		"redis-sentinel://u:" + secret + "@h",
		"redis-sentinel://u:1/" + secret + "@h/m",
		"redis-sentinel://u:" + secret + "@h/m/x",
		"redis-sentinel://h/m?sentinel_password=" + secret + "&sentinel_password=" + secret,
		"redis-sentinel://h/m?sentinel_password=" + secret + "%",
	} {
		client, err := rediskeys.Open(url)
		if err == nil {
			client.Close()
			t.Errorf("%s: no error", url)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	good := redis.Options{ContextTimeoutEnabled: true}
	cluster := redis.ClusterOptions{ContextTimeoutEnabled: true}
	for name, tt := range map[string]struct {
		client redis.UniversalClient
		config rediskeys.Config
		want   string
	}{
		"no client":                       {nil, rediskeys.Config{}, "no client"},
		"a client that ignores deadlines": {redis.NewClient(&redis.Options{}), rediskeys.Config{}, "ContextTimeoutEnabled"},
		"a Cluster's too":                 {redis.NewClusterClient(&redis.ClusterOptions{}), rediskeys.Config{}, "ContextTimeoutEnabled"},
		"a client that reads replicas":    {redis.NewClusterClient(&redis.ClusterOptions{ContextTimeoutEnabled: true, RouteRandomly: true}), rediskeys.Config{}, "replicas"},
		"a Ring":                          {redis.NewRing(&redis.RingOptions{}), rediskeys.Config{}, "Ring"},
		"braces in the prefix":            {redis.NewClient(&good), rediskeys.Config{Prefix: "a{b}"}, "Config.Prefix"},
		"a line end in the prefix":        {redis.NewClient(&good), rediskeys.Config{Prefix: "a\n"}, "Config.Prefix"},
		"a long prefix":                   {redis.NewClient(&good), rediskeys.Config{Prefix: strings.Repeat("a", 65)}, "Config.Prefix"},
		"a short log":                     {redis.NewClient(&good), rediskeys.Config{LogLength: 99}, "Config.LogLength"},
		"a negative log":                  {redis.NewClusterClient(&cluster), rediskeys.Config{LogLength: -1}, "Config.LogLength"},
		"a good configuration":            {redis.NewClusterClient(&cluster), rediskeys.Config{LogLength: 100, Prefix: strings.Repeat("a", 64)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.client != nil {
				defer tt.client.Close()
			}
			_, err := rediskeys.New(tt.client, tt.config)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}
