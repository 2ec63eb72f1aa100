package revocations_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/keyturn/keyturn/rotation/rediskeys"
	"github.com/keyturn/keyturn/verifier/revocations"
)

// Two instances share a list. What one revokes, the other refuses.
func Example() {
	server, err := miniredis.Run() // stands for your Redis
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var lists []*revocations.List
	for _, instance := range []string{"pod-1", "pod-2"} {
		client, err := rediskeys.Open("redis://" + server.Addr())
		if err != nil {
			log.Fatal(err)
		}
		defer client.Close()
		list, err := revocations.Open(ctx, client, revocations.Config{
			Instance: instance, Logger: slog.New(slog.DiscardHandler),
			TrustFirstRead: true,            // this program has just made the store; a service leaves that out
			Deadline:       5 * time.Second, // for a busy test machine
		})
		if err != nil {
			log.Fatal(err)
		}
		defer list.Close(ctx)
		if err := list.WaitReady(ctx); err != nil {
			log.Fatal(err)
		}
		lists = append(lists, list)
	}
	// Give each list to its verifier: verifier.Config{Revocations: list}.
	for seen := 0; seen < len(lists); time.Sleep(10 * time.Millisecond) { // Watch waits for instances that have said that they live
		instances, err := lists[0].Instances(ctx)
		if err != nil {
			log.Fatal(err)
		}
		seen = len(instances)
	}

	receipt, err := lists[0].RevokeSubject(ctx, "acme", "ann", time.Now())
	if err != nil {
		log.Fatal(err)
	}
	applied, err := lists[0].Watch(ctx, receipt)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(receipt.Kind, "revoked, applied by", applied.By, "missing", len(applied.Missing))
	fmt.Println("pod-2 holds", lists[1].Len())
	// Output:
	// subject revoked, applied by [pod-1 pod-2] missing 0
	// pod-2 holds 1
}
