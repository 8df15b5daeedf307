package sim

import (
	"fmt"

	"external-server/internal/session"
)

// durableView answers the core's questions.
type durableView struct{ s *durableServer }

func (v durableView) Configured(n int32) bool { return configured(n) }

func (v durableView) Recall(n int32, deviceType uint32) (supported, known bool) {
	return supports(n, deviceType), true
}

func (v durableView) Awaited(n int32) bool { return v.s.w.awaited[n] }

func (v durableView) Position(n int32) int { return moduleView{}.Position(n) }

func (v durableView) Room(n int32) int {
	room := v.s.worker(n).room()
	if room <= 0 {
		v.s.w.excuse()
	}
	return room
}

func describeEffect(e *session.Effect) string {
	return fmt.Sprintf("%d %+v %v %q #%d %s%s", e.Kind, e.Message, e.Device, e.Data, e.Number, e.Note, e.Reason)
}
