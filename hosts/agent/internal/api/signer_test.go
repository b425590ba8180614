package api

import (
	"bufio"
	"net"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/palisade-host/palisade/hosts/api/palisade/agent/v1"
)

// sign answers the first enrollment request as the hypervisor does.
func (f *fixture) sign(hypervisor net.Conn, enrolled chan<- struct{}) {
	line, err := bufio.NewReader(hypervisor).ReadString('\n')
	if err != nil {
		return
	}
	var request agentv1.EnrollmentRequest
	if err := protojson.Unmarshal([]byte(line), &request); err != nil {
		return
	}
	answer, err := protojson.Marshal(&agentv1.EnrollmentResponse{
		CertificateChain:     f.authority.Host(request.GetCertificateRequest(), f.now.Add(-time.Minute), f.now.Add(24*time.Hour)),
		CertificateAuthority: f.authority.PEM(), SignerTime: timestamppb.New(f.now),
	})
	if err != nil {
		return
	}
	if _, err := hypervisor.Write(append(answer, '\n')); err == nil {
		close(enrolled)
	}
}
