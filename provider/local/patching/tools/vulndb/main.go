// Command vulndb writes a vulnerability database that Trivy reads offline: db/trivy.db and db/metadata.json below the
// folder that is its argument, from advisories as JSON on standard input. The schema is that of trivy-db, version 2:
// https://github.com/aquasecurity/trivy-db/tree/main/pkg/db
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
)

// schemaVersion is the one that Trivy demands of metadata.json.
const schemaVersion = 2

// input is what standard input holds.
type input struct {
	// Release of Debian, e.g. "13".
	Release    string     `json:"release"`
	Advisories []advisory `json:"advisories"`
}

type advisory struct {
	// Source package.
	Package string `json:"package"`
	// CVE identifier.
	ID string `json:"id"`
	// FixedVersion is the first version of the source package that is not affected.
	FixedVersion string `json:"fixedVersion"`
}

func main() {
	if len(os.Args) != 2 {
		fail(fmt.Errorf("usage: vulndb FOLDER < ADVISORIES"))
	}
	if err := run(os.Args[1], os.Stdin); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "vulndb:", err)
	os.Exit(1)
}

func run(folder string, source io.Reader) error {
	var data input
	decoder := json.NewDecoder(source)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&data); err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	if data.Release == "" {
		return fmt.Errorf("release: is empty; a Debian release like 13 is needed")
	}
	directory := filepath.Join(folder, "db")
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return err
	}
	if err := writeDatabase(filepath.Join(directory, "trivy.db"), data); err != nil {
		return err
	}
	now := time.Now().UTC()
	metadata, err := json.Marshal(map[string]any{
		"Version":   schemaVersion,
		"UpdatedAt": now,
		// It is updated by making it anew, never by Trivy.
		"NextUpdate":   now.AddDate(100, 0, 0),
		"DownloadedAt": now,
	})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(directory, "metadata.json"), metadata, 0o644)
}

func writeDatabase(path string, data input) error {
	database, err := bolt.Open(path, 0o644, nil)
	if err != nil {
		return err
	}
	err = database.Update(func(transaction *bolt.Tx) error { return fill(transaction, data) })
	if closing := database.Close(); err == nil {
		err = closing
	}
	return err
}

func fill(transaction *bolt.Tx, data input) error {
	platform := "debian " + data.Release
	sources, err := transaction.CreateBucket([]byte("data-source"))
	if err != nil {
		return err
	}
	origin := map[string]string{"ID": "debian", "Name": "Debian changelogs", "URL": "https://www.debian.org/security/"}
	if err := put(sources, platform, origin); err != nil {
		return err
	}
	packages, err := transaction.CreateBucket([]byte(platform))
	if err != nil {
		return err
	}
	details, err := transaction.CreateBucket([]byte("vulnerability"))
	if err != nil {
		return err
	}
	for _, one := range data.Advisories {
		bucket, err := packages.CreateBucketIfNotExists([]byte(one.Package))
		if err != nil {
			return fmt.Errorf("advisories: package %q: %w", one.Package, err)
		}
		if err := put(bucket, one.ID, map[string]string{"FixedVersion": one.FixedVersion}); err != nil {
			return fmt.Errorf("advisories: %q of %s: %w", one.ID, one.Package, err)
		}
		// Changelogs tell no severity.
		if err := put(details, one.ID, map[string]string{"Severity": "UNKNOWN"}); err != nil {
			return err
		}
	}
	return nil
}

func put(bucket *bolt.Bucket, key string, value any) error {
	content, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return bucket.Put([]byte(key), content)
}
