module github.com/palisade-host/palisade

go 1.26
