package carlist

import (
	"bytes"
	"testing"
	"time"
)

func TestWriteCSV(t *testing.T) {
	at, shard := time.Date(2026, 3, 4, 5, 6, 7, 890_000_000, time.FixedZone("CET", 3600)), 3
	var out bytes.Buffer
	err := WriteCSV(&out, []Brief{
		{Name: "car_2", Labels: map[string]string{"depot": "=HYPERLINK(\"http://x\")", "a10": "-1", "a9": "x"}, State: "waiting", Since: &at, Why: "no route, sorry",
			LastEnd: &End{At: at, Reason: "session timeout", Session: "s;=1", Established: true, Seconds: 1.5, Unanswered: 2}},
		{Name: "car_10", State: "running", Session: "@x", Devices: 4, Statuses: 5, Sessions: 6, Ends: 7, Replica: "east", Shard: &shard, Epoch: 8},
	})
	const want = "name,state,since,why,last_seen,session,resumed,devices,statuses,sessions,ends,last_end_at,last_end_reason,last_end_session," +
		"last_end_established,last_end_seconds,last_end_unanswered_commands,replica,shard,epoch,label.a9,label.a10,label.depot\r\n" +
		`car_2,waiting,"2026-03-04T04:06:07.89Z","no route, sorry",,,,0,0,0,0,"2026-03-04T04:06:07.89Z",session timeout,"s;'=1",true,1.500,2,,,,x,"'-1","'=HYPERLINK(""http://x"")"` + "\r\n" +
		`car_10,running,,,,"'@x",,4,5,6,7,,,,,,,east,3,8,,,` + "\r\n"
	if err != nil || out.String() != want {
		t.Errorf("%v\n%s\nexpected\n%s", err, out.String(), want)
	}
}
