package seal_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/palisade-host/palisade/hosts/seal"
	"github.com/palisade-host/palisade/hosts/seal/sealtest"
)

func TestOpen(t *testing.T) {
	key, image := sealtest.NewKey(t), sealtest.NewImage(t, "base", "app")
	manifest, err := seal.Open(key.Seal(t, image.Sealed), key.Keys())
	if err != nil {
		t.Fatal(err)
	}
	if manifest.KeyID != key.ID || manifest.Image.Digest != image.Digest || len(manifest.Layers) != 2 || manifest.Layers[1] != image.Sealed.Layers[1] {
		t.Errorf("%+v", manifest)
	}
}

func TestOpenRefuses(t *testing.T) {
	key, foreign, image := sealtest.NewKey(t), sealtest.NewKey(t), sealtest.NewImage(t, "base", "app")
	payload, err := json.Marshal(image.Sealed)
	if err != nil {
		t.Fatal(err)
	}
	good := key.Seal(t, image.Sealed)
	claimed := *foreign
	claimed.ID = key.ID
	changed := bytes.Replace(good, []byte(base64.StdEncoding.EncodeToString(payload)), []byte(base64.StdEncoding.EncodeToString(append(payload, ' '))), 1)
	if bytes.Equal(changed, good) {
		t.Fatal("the payload was not found")
	}
	for name, test := range map[string]struct {
		envelope []byte
		says     string
	}{
		"nothing":                  {nil, "no DSSE envelope"},
		"a foreign key":            {foreign.Seal(t, image.Sealed), "trusted key"},
		"a key under another's id": {claimed.Seal(t, image.Sealed), "trusted key"},
		"a changed payload":        {changed, "trusted key"},
		"another payload type":     {key.Envelope(t, "application/json", payload), "application/json"},
		"no signature":             {[]byte(`{"payloadType":"` + sealtest.PayloadType + `","payload":"e30=","signatures":[]}`), "trusted key"},
		"no base64":                {[]byte(`{"payloadType":"` + sealtest.PayloadType + `","payload":"!"}`), "payload"},
		"a payload that is none":   {key.Envelope(t, sealtest.PayloadType, []byte("[]")), "seal manifest"},
		"too much":                 {slices.Concat(good, bytes.Repeat([]byte(" "), 1<<20)), "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := seal.Open(test.envelope, key.Keys()); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v", err)
			}
		})
	}
	if _, err := seal.Open(foreign.Seal(t, image.Sealed), key.Keys()); !errors.Is(err, seal.ErrUnknownKey) {
		t.Errorf("%v", err)
	}
}

func TestManifestFields(t *testing.T) {
	key := sealtest.NewKey(t)
	const hex = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for field, change := range map[string]func(*seal.Manifest){
		"version":              func(m *seal.Manifest) { m.Version = 2 },
		"image.digest":         func(m *seal.Manifest) { m.Image.Digest = "sha512:" + hex },
		"image.config":         func(m *seal.Manifest) { m.Image.Config = "" },
		"layerKey":             func(m *seal.Manifest) { m.LayerKey = "key" },
		"layers":               func(m *seal.Manifest) { m.Layers = nil },
		"layers[1].digest":     func(m *seal.Manifest) { m.Layers[1].Digest = hex },
		"layers[1].diffId":     func(m *seal.Manifest) { m.Layers[1].DiffID = "sha256:../" + hex[3:] },
		"layers[1].blob":       func(m *seal.Manifest) { m.Layers[1].Blob = "sha256:" + strings.ToUpper(hex) },
		"layers[0].signature":  func(m *seal.Manifest) { m.Layers[0].Signature = "" },
		"layers[1].rootHash":   func(m *seal.Manifest) { m.Layers[1].RootHash = "../../etc/passwd" },
		"layers[1].hashOffset": func(m *seal.Manifest) { m.Layers[1].HashOffset = 4095 },
		"layers[0].hashOffset": func(m *seal.Manifest) { m.Layers[0].HashOffset = -4096 },
		"layers[0].size":       func(m *seal.Manifest) { m.Layers[0].Size = m.Layers[0].HashOffset },
		"layers[1].size":       func(m *seal.Manifest) { m.Layers[1].Size = 1 << 62 },
	} {
		t.Run(field, func(t *testing.T) {
			manifest := sealtest.NewImage(t, "base", "app").Sealed
			change(&manifest)
			if _, err := seal.Open(key.Seal(t, manifest), key.Keys()); err == nil || !strings.Contains(err.Error(), field+": ") && field != "version" {
				t.Errorf("%v", err)
			}
		})
	}
	many := sealtest.NewImage(t, "base").Sealed
	many.Layers = slices.Repeat(many.Layers, 128)
	if _, err := seal.Open(key.Seal(t, many), key.Keys()); err == nil || !strings.Contains(err.Error(), "128 layers") {
		t.Errorf("%v", err)
	}
}

func TestCovers(t *testing.T) {
	image := sealtest.NewImage(t, "base", "app")
	m := image.Sealed
	layers, diffIDs := []string{m.Layers[0].Digest, m.Layers[1].Digest}, []string{m.Layers[0].DiffID, m.Layers[1].DiffID}
	if err := m.Covers(image.Digest, m.Image.Config, layers, diffIDs); err != nil {
		t.Error(err)
	}
	swapped := func(list []string) []string { return []string{list[1], list[0]} }
	for says, err := range map[string]error{
		"for image":         m.Covers(m.Image.Config, m.Image.Config, layers, diffIDs),
		"for configuration": m.Covers(image.Digest, image.Digest, layers, diffIDs),
		"2 layers, the":     m.Covers(image.Digest, m.Image.Config, layers[:1], diffIDs[:1]),
		"and 1 diffIDs":     m.Covers(image.Digest, m.Image.Config, layers, diffIDs[:1]),
		"its layer 0 is":    m.Covers(image.Digest, m.Image.Config, swapped(layers), swapped(diffIDs)),
		"has diffID":        m.Covers(image.Digest, m.Image.Config, layers, swapped(diffIDs)),
	} {
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
}

func TestRSAKeys(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	content := sha256.Sum256([]byte("content"))
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, content[:])
	if err != nil {
		t.Fatal(err)
	}
	if !seal.Verify(&key.PublicKey, content, signature) || seal.Verify(&key.PublicKey, sha256.Sum256([]byte("other")), signature) {
		t.Error("RSA signatures are not distinguished")
	}
	if seal.Verify("no key", content, signature) {
		t.Error("something else than a key verifies")
	}
}

// trustFolder returns a folder with the trusted keys of a host: a public key and a certificate.
func trustFolder(t *testing.T, key *sealtest.Key) (folder string, certificateKey string) {
	t.Helper()
	folder = t.TempDir()
	if err := os.Mkdir(filepath.Join(folder, "seals"), 0o755); err != nil {
		t.Fatal(err)
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	certificateKey, err = seal.KeyID(&private.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(folder, "seals", "a.pem"), []byte(key.PEM))
	write(t, filepath.Join(folder, "seals", "b.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	write(t, filepath.Join(folder, "seals", "notes.txt"), []byte("not a key"))
	return folder, certificateKey
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestTrust(t *testing.T) {
	key, image := sealtest.NewKey(t), sealtest.NewImage(t, "base", "app")
	folder, certificateKey := trustFolder(t, key)
	trust, err := seal.LoadTrust(folder)
	if err != nil || len(trust.Keys) != 2 || trust.Keys[key.ID] == nil || trust.Keys[certificateKey] == nil {
		t.Fatalf("%v, %v", trust, err)
	}
	envelope := key.Seal(t, image.Sealed)
	if _, err := trust.Open(envelope); err != nil {
		t.Error(err)
	}
	for name, revoked := range map[string]seal.Revocations{
		"image":     {Images: []string{image.Digest}},
		"layer":     {RootHashes: []string{image.Sealed.Layers[1].RootHash}},
		"seal key":  {Keys: []string{key.ID}},
		"layer key": {Keys: []string{image.Sealed.LayerKey}},
	} {
		content, err := json.Marshal(revoked)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(folder, "revoked.json"), content)
		trust, err := seal.LoadTrust(folder)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := trust.Open(envelope); err == nil || !strings.Contains(err.Error(), "revoked") || !strings.Contains(err.Error(), image.Digest) {
			t.Errorf("%s: %v", name, err)
		}
		other := sealtest.NewImage(t, "other")
		other.Sealed.LayerKey = strings.Repeat("2", 64)
		if _, err := trust.Open(key.Seal(t, other.Sealed)); (err == nil) != (name != "seal key") {
			t.Errorf("%s, another image: %v", name, err)
		}
	}
	// An unreadable list must not count as an empty one.
	write(t, filepath.Join(folder, "revoked.json"), []byte("["))
	if _, err := seal.LoadTrust(folder); err == nil {
		t.Error("broken revocations were read as none")
	}
	if err := os.Remove(filepath.Join(folder, "revoked.json")); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"", "nonsense", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"} {
		write(t, filepath.Join(folder, "seals", "c.pem"), []byte(content))
		if _, err := seal.LoadTrust(folder); err == nil || !strings.Contains(err.Error(), "c.pem") {
			t.Errorf("%q: %v", content, err)
		}
	}
}

func TestFind(t *testing.T) {
	key, image := sealtest.NewKey(t), sealtest.NewImage(t, "app")
	builtIn, fetched := seal.Store(t.TempDir()), seal.Store(t.TempDir())
	stores, trust := []seal.Store{builtIn, fetched}, seal.Trust{Keys: key.Keys()}
	put := func(store seal.Store, digest string, envelope []byte) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(store.Seal(digest)), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, store.Seal(digest), envelope)
	}
	if _, _, err := seal.Find(stores, trust, image.Digest); !errors.Is(err, seal.ErrNotSealed) {
		t.Errorf("%v", err)
	}
	put(fetched, image.Digest, key.Seal(t, image.Sealed))
	if manifest, store, err := seal.Find(stores, trust, image.Digest); err != nil || store != fetched || manifest.Image.Digest != image.Digest {
		t.Errorf("%v, %v, %v", manifest, store, err)
	}
	other := sealtest.NewImage(t, "other")
	put(fetched, other.Digest, key.Seal(t, image.Sealed))
	if _, _, err := seal.Find(stores, trust, other.Digest); err == nil || !strings.Contains(err.Error(), "it is for image") {
		t.Errorf("the seal of another image: %v", err)
	}
	put(fetched, other.Digest, sealtest.NewKey(t).Seal(t, other.Sealed))
	if _, _, err := seal.Find(stores, trust, other.Digest); !errors.Is(err, seal.ErrUnknownKey) {
		t.Errorf("a foreign seal: %v", err)
	}
	// The layers of the host image come first.
	put(builtIn, image.Digest, key.Seal(t, image.Sealed))
	if _, store, err := seal.Find(stores, trust, image.Digest); err != nil || store != builtIn {
		t.Errorf("%v, %v", store, err)
	}
	for _, digest := range []string{"", "sha256:", "../../etc/passwd", image.Digest + "/.."} {
		if _, _, err := seal.Find(stores, trust, digest); err == nil {
			t.Errorf("%q was looked for", digest)
		}
	}
}

func TestStorePaths(t *testing.T) {
	store := seal.Store("/s")
	digest := "sha256:ab" + strings.Repeat("0", 62)
	for got, want := range map[string]string{
		store.Blob("r"):        "/s/blobs/r.erofs",
		store.Signature("r"):   "/s/blobs/r.p7s",
		store.Lookup(digest):   "/s/sha256/ab/" + digest[7:] + ".erofs",
		store.Metadata(digest): "/s/sha256/ab/" + digest[7:] + ".erofs.dmverity",
		store.Seal(digest):     "/s/seals/" + digest[7:] + ".json",
	} {
		if got != want {
			t.Errorf("%s, expected %s", got, want)
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte(`{"payloadType":"application/vnd.palisade.seal.v1+json","payload":"e30=","signatures":[{"keyid":"a","sig":"AA=="}]}`))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, envelope []byte) {
		if manifest, err := seal.Open(envelope, seal.Keys{}); err == nil {
			t.Errorf("opened without a key: %v", manifest)
		}
	})
}

// TestEnvelopes runs the table with which the TypeScript implementation is tested as well.
func TestEnvelopes(t *testing.T) {
	content, err := os.ReadFile("../api/testdata/seal-envelopes.json")
	if err != nil {
		t.Fatal(err)
	}
	var table struct {
		PublicKey string
		Cases     []struct {
			Name, Envelope string
			Accepted       bool
		}
	}
	if err := json.Unmarshal(content, &table); err != nil {
		t.Fatal(err)
	}
	keys, err := seal.ParseKeys([]byte(table.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range table.Cases {
		if _, err := seal.Open([]byte(row.Envelope), keys); (err == nil) != row.Accepted {
			t.Errorf("%s: %v", row.Name, err)
		}
	}
}

func TestLayerCounts(t *testing.T) {
	key, image := sealtest.NewKey(t), sealtest.NewImage(t, "base")
	for _, test := range sealtest.LayerCounts(t, "testdata/layer-counts.json") {
		manifest := image.Sealed
		manifest.Layers = slices.Repeat(image.Sealed.Layers, test.Layers)
		if _, err := seal.Open(key.Seal(t, manifest), key.Keys()); (err == nil) != test.Accepted {
			t.Errorf("%d layers: %v", test.Layers, err)
		}
	}
}
