// Puts the rooms together.

import { ChatRoom } from "./chat.js";
import { Live } from "./live.js";
import { MapRoom } from "./map-room.js";
import { SwarmRoom } from "./swarm.js";
import { themeButton } from "./theme.js";
import { followAddress } from "./views.js";

const live = new Live();
const showView = followAddress();
themeButton();
const swarm = new SwarmRoom(live);
new ChatRoom(live, () => swarm.pulse());
new MapRoom(live, showView);
live.run();
