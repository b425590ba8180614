module palisade.example/tools/vulndb

go 1.26

tool palisade.example/tools/vulndb

require go.etcd.io/bbolt v1.5.0

require golang.org/x/sys v0.45.0 // indirect
