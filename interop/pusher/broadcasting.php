<?php

/**
 * A Laravel application as far as broadcasting goes, for PHP's own web server: Illuminate's broadcaster authorises
 * (`/broadcasting/auth`, as `routes/channels.php` would have it) and broadcasts (`/broadcast`, as an event of the application would).
 */

foreach (['Broadcasting', 'Http'] as $library) {
    require_once "Illuminate/$library/autoload.php";
}
require __DIR__.'/pusher.php';

use Illuminate\Broadcasting\BroadcastException;
use Illuminate\Broadcasting\Broadcasters\PusherBroadcaster;
use Illuminate\Broadcasting\Channel;
use Illuminate\Broadcasting\EncryptedPrivateChannel;
use Illuminate\Broadcasting\PresenceChannel;
use Illuminate\Broadcasting\PrivateChannel;
use Illuminate\Http\Request;
use Symfony\Component\HttpKernel\Exception\AccessDeniedHttpException;

/** The one who is logged in: the test says in a header who that is. */
class User
{
    public function __construct(public int $id, public string $name)
    {
    }

    public function getAuthIdentifier()
    {
        return $this->id;
    }
}

$broadcaster = new PusherBroadcaster(new Pusher\Pusher(json_decode(getenv('TAUT_PUSHER_APP'), true)));
$broadcaster->channel('orders.{owner}', fn (User $user, $owner) => $user->id === (int) $owner);
$broadcaster->channel('room.{room}', fn (User $user, $room) => ['id' => $user->id, 'name' => $user->name]);

$request = Request::capture();
$request->setUserResolver(fn () => $request->header('X-User') ? new User(...json_decode($request->header('X-User'))) : null);
$kinds = ['' => Channel::class, 'private' => PrivateChannel::class, 'presence' => PresenceChannel::class, 'encrypted' => EncryptedPrivateChannel::class];

header('Content-Type: application/json');
try {
    if ($request->path() === 'broadcasting/auth') {
        echo json_encode($broadcaster->auth($request));
    } else {
        $channels = array_map(fn ($channel) => new $kinds[$channel['kind']]($channel['name']), $request->input('channels'));
        $broadcaster->broadcast($channels, $request->input('event'), $request->input('payload') + ['socket' => $request->header('X-Socket-ID')]);
        echo '{}';
    }
} catch (AccessDeniedHttpException $refusal) {
    http_response_code(403);
    echo '{}';
} catch (BroadcastException $failure) {
    http_response_code(502);
    echo json_encode(['message' => $failure->getMessage()]);
}
